// The emulator itself: shuffles against the PTX ISA's pseudo-code, votes, reductions, overlapping masks, geometry, dynamic
// shared memory, errors, hand-over between blocks, and launches from several OS threads.
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "simt.h"

static int passes = 0, failures = 0;
static void expect(bool ok, const std::string& what) {
  (ok ? passes : failures)++;
  if (!ok) std::printf("FAIL %s\n", what.c_str());
}

__global__ void shuffle(int kind, int arg, int width, int* out) {
  const int l = int(threadIdx.x), v = 100 + l;
  out[l] = kind == 0   ? __shfl_sync(~0u, v, arg, width)
           : kind == 1 ? __shfl_up_sync(~0u, v, unsigned(arg), width)
           : kind == 2 ? __shfl_down_sync(~0u, v, unsigned(arg), width)
                       : __shfl_xor_sync(~0u, v, arg, width);
}
__global__ void votes(unsigned* out) {
  const unsigned l = threadIdx.x, half = l < 16 ? 0x0000ffffu : 0xffff0000u;
  out[l] = __ballot_sync(~0u, l % 3 == 0);
  out[32 + l] = __ballot_sync(half, l % 2);  // two masks in flight in one warp
  out[64 + l] = __match_any_sync(~0u, l % 5);
  out[96 + l] = __reduce_add_sync(half, l);
  out[128 + l] = unsigned(__reduce_min_sync(~0u, int(l) - 7));
  out[160 + l] = unsigned(__any_sync(half, l == 20)) * 2 + unsigned(__all_sync(half, l < 16));
  out[192 + l] = __reduce_max_sync(~0u, l * 7 % 32);
}
__global__ void geometry(unsigned* out) {
  const unsigned t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x,
                 n = blockDim.x * blockDim.y * blockDim.z;
  const unsigned b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned members = n - t / 32 * 32 >= 32 ? ~0u : (1u << (n - t / 32 * 32)) - 1;
  const unsigned first = __shfl_sync(members, t, 0);
  out[b * n + t] = b * 1000 + first + unsigned(__syncthreads_count(t % 2)) * 100000;
}
__global__ void dynamic(float* out, int n) {
  GPU_DYNAMIC_SHARED(float, s);
  for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) s[i] = float(i);
  __syncthreads();
  float v = 0;
  for (int i = 0; i < n; ++i) v += s[i];
  out[blockIdx.x * blockDim.x + threadIdx.x] = v;
}
// Every block adds what the one before it has handed on: a ticket gives the order in which blocks start.
__global__ void chain(unsigned* ticket, unsigned* flags, unsigned* sums) {
  GPU_SHARED(unsigned, tile, [1]);
  if (threadIdx.x == 0) tile[0] = atomicAdd(ticket, 1u);
  __syncthreads();
  const unsigned t = tile[0];
  if (threadIdx.x) return;
  unsigned before = 0;
  if (t) {
    while (gpu::load_acquire(&flags[t - 1]) == 0) gpu::spin_wait();
    before = sums[t - 1];
  }
  sums[t] = before + t;
  gpu::store_release(&flags[t], 1u);
}
__global__ void atomics(unsigned* p) {
  atomicAdd(&p[0], 2u), atomicMax(&p[1], threadIdx.x), atomicOr(&p[2], 1u << threadIdx.x % 32);
  while (atomicCAS(&p[3], threadIdx.x, threadIdx.x + 1) != threadIdx.x) gpu::spin_wait();
}
__global__ void reverse(int* p, int n) {  // in place through shared memory
  GPU_SHARED(int, room, [256]);
  const int i = int(threadIdx.x);
  room[i] = p[i];
  __syncthreads();
  p[i] = room[n - 1 - i];
}

template <class T>
struct Array {
  T* p = nullptr;
  size_t n;
  explicit Array(size_t count, int byte = -1) : n(count) {
    cudaMalloc(&p, n * sizeof(T));
    if (byte >= 0) cudaMemset(p, byte, n * sizeof(T));
  }
  ~Array() { cudaFree(p); }
  std::vector<T> read() const {
    std::vector<T> v(n);
    cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost);
    return v;
  }
};

static void raises(const char* part, const std::function<void()>& f) {
  try {
    f();
    expect(false, std::string("no error: ") + part);
  } catch (const simt::Error& e) {
    expect(std::string(e.what()).find(part) != std::string::npos, e.what());
  }
}

static void shuffles() {
  const Array<int> out(32);
  for (int kind = 0; kind < 4; ++kind)
    for (int width = 1; width <= 32; width *= 2)
      for (int arg = 0; arg < 32; ++arg) {
        simt::launch(shuffle, 1, 32, 0, kind, arg, width, out.p);
        const auto got = out.read();
        bool ok = true;
        for (int lane = 0; lane < 32; ++lane) {  // PTX ISA 9.7.9.6, with CUDA's c operand
          const int segment = 32 - width, clamp = kind == 1 ? 0 : 31, low = lane & segment, high = low | (clamp & ~segment);
          int j;
          bool p;
          if (kind == 1) j = lane - arg, p = j >= high;
          else if (kind == 2) j = lane + arg, p = j <= high;
          else if (kind == 3) j = lane ^ arg, p = j <= high;
          else j = low | (arg & ~segment), p = j <= high;
          ok &= got[size_t(lane)] == 100 + (p ? j : lane);
        }
        expect(ok, "shuffle kind " + std::to_string(kind) + " width " + std::to_string(width) + " arg " + std::to_string(arg));
      }
}

static void collectives() {
  const Array<unsigned> u(1024);
  simt::launch(votes, 1, 32, 0, u.p);
  auto v = u.read();
  for (unsigned l = 0; l < 32; ++l) {
    unsigned match = 0;
    for (unsigned k = 0; k < 32; ++k) match |= unsigned(k % 5 == l % 5) << k;
    expect(v[l] == 0x49249249u && v[32 + l] == (l < 16 ? 0x0000aaaau : 0xaaaa0000u) && v[64 + l] == match &&
               v[96 + l] == (l < 16 ? 120u : 376u) && int(v[128 + l]) == -7 && v[160 + l] == (l < 16 ? 1u : 2u) &&
               v[192 + l] == 31,
           "votes lane " + std::to_string(l));
  }
  simt::launch(geometry, dim3(2, 3, 2), dim3(5, 3, 5), 0, u.p);
  v = u.read();
  bool ok = true;
  for (unsigned b = 0; b < 12; ++b)
    for (unsigned t = 0; t < 75; ++t) ok &= v[b * 75 + t] == b * 1000 + t / 32 * 32 + 3700000;
  expect(ok, "3-d block and grid, last warp partial");
  const Array<float> f(256);
  simt::allow_dynamic_shared(reinterpret_cast<const void*>(&dynamic), 100 * 1024);
  simt::launch(dynamic, 4, 64, 100 * 1024, f.p, 25600);
  expect(f.read()[255] == f.read()[0] && f.read()[0] > 3.2e8f, "dynamic shared memory");
  const Array<unsigned> hand(1 + 2 * 40, 0);
  simt::launch(chain, 40, 32, 0, hand.p, hand.p + 1, hand.p + 41);
  expect(hand.read()[80] == 39 * 40 / 2, "hand-over between blocks");
  const Array<unsigned> counters(4, 0);
  simt::launch(atomics, 1, 96, 0, counters.p);
  v = counters.read();
  expect(v[0] == 192 && v[1] == 95 && v[2] == ~0u && v[3] == 96, "atomics");
}

static void errors() {
  const Array<int> out(32, 0);
  const Array<unsigned> u(64);
  raises("allow_dynamic_shared", [&] { simt::launch(geometry, 1, 32, 49153, u.p); });
  raises("227 KiB", [&] { simt::allow_dynamic_shared(reinterpret_cast<const void*>(&dynamic), 233473); });
  raises("bad block size", [&] { simt::launch(geometry, 1, 1025, 0, u.p); });
  raises("bad grid size", [&] { simt::launch(geometry, dim3(1, 65536), 1, 0, u.p); });
  raises("bad width 12", [&] { simt::launch(shuffle, 1, 32, 0, 0, 1, 12, out.p); });
  raises("distance 32", [&] { simt::launch(shuffle, 1, 32, 0, 1, 32, 32, out.p); });
  expect(cudaMemset(out.p, 0, 129) == cudaErrorInvalidValue, "memset past the end");
  expect(std::string(cudaGetErrorString(cudaErrorInvalidValue)).find("not inside one cudaMalloc") != std::string::npos,
         "its message");
  expect(cudaFree(out.p + 1) == cudaErrorInvalidValue, "free of what was not allocated");
  simt::launch(reverse, 1, 32, 0, out.p, 32);  // usable after an error
  expect(true, "launch after an error");
}

// Launches, allocations and errors from four OS threads at once: one kernel runs at a time.
static void threads() {
  std::vector<std::thread> all;
  std::vector<int> wrong(4, 0);
  for (int id = 0; id < 4; ++id)
    all.emplace_back([id, &wrong] {
      for (int round = 0; round < 25; ++round) {
        const Array<int> a(64);
        std::vector<int> v(64);
        for (int i = 0; i < 64; ++i) v[size_t(i)] = id * 1000 + i;
        cudaMemcpy(a.p, v.data(), 256, cudaMemcpyHostToDevice);
        simt::launch(reverse, 1, 64, 0, a.p, 64);
        const auto got = a.read();
        for (int i = 0; i < 64; ++i) wrong[size_t(id)] += got[size_t(i)] != id * 1000 + 63 - i;
        try {
          simt::launch(shuffle, 1, 32, 0, 0, 1, 12, a.p);
          ++wrong[size_t(id)];
        } catch (const simt::Error&) {
        }
      }
    });
  for (auto& t : all) t.join();
  for (int id = 0; id < 4; ++id) expect(wrong[size_t(id)] == 0, "thread " + std::to_string(id));
}

int main() {
  shuffles();
  collectives();
  errors();
  threads();
  std::printf("%d passed, %d failed\n", passes, failures);
  return failures != 0;
}
