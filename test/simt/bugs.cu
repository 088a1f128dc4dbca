// Planted bugs, for the emulator: `bugs N` runs bug N (0: the correct kernel) and says what came of it; `bugs N name` names it.
// run.sh wants every one of them noticed.
#include <cmath>
#include <cstring>
#include <vector>

#include "cuda/gpu.h"

constexpr int BLOCK = 128;
enum Bug {
  none,
  missing_barrier,
  missing_war_barrier,
  shared_overrun,
  global_overrun,
  wrong_mask,
  divergent_shuffle,
  divergent_barrier,
  missing_syncwarp,
  uninit_shared,
  shared_rmw,
  global_rmw,
  order_by_index,
  unreleased_flag,
  ldg_same_kernel,
  host_pointer,
  uninit_local,
  misaligned_vector,
  inactive_lane,
  local_overrun,
  uninit_global,
  early_return,
  bug_count
};
static const char* const names[] = {"none",
                                    "missing __syncthreads (read after write)",
                                    "missing __syncthreads (write after read)",
                                    "shared write past the end",
                                    "global write past the end",
                                    "mask without the calling lane",
                                    "shuffle in a divergent branch",
                                    "barrier in a divergent branch",
                                    "missing __syncwarp",
                                    "uninitialised shared read",
                                    "non-atomic += on shared",
                                    "non-atomic += between blocks",
                                    "waiting for a block by its index",
                                    "flag by a plain store",
                                    "__ldg of data written here",
                                    "host pointer in a kernel",
                                    "uninitialised local",
                                    "misaligned float4",
                                    "value of an inactive lane used",
                                    "local array past the end",
                                    "uninitialised global read",
                                    "return before __syncthreads"};

// Sums x over the block, out[block] = sum. Each bug breaks one step.
template <int BUG>
__global__ void block_sum(const float* x, float* out, int count) {
  GPU_SHARED(float, part, [BLOCK / 32]);
  GPU_SHARED(float, extra, [BLOCK]);
  const int t = int(threadIdx.x), lane = t % 32, warp = t / 32, n = int(blockIdx.x) * BLOCK + t;
  if (BUG == early_return && n >= count) return;
  float local[4];
  if (BUG != uninit_local) local[0] = 0;
  local[0] += n < count ? x[n] : 0.0f;
  for (int i = 1; i < (BUG == local_overrun && count > 0 ? 4 + count / 200 : 4); ++i) local[i] = local[i - 1];
  float v = local[3];
  if (BUG == misaligned_vector && n + 5 < count) {
    const float4 q = *reinterpret_cast<const float4*>(x + 1 + n / 4 * 4);
    v += 0 * (q.x + q.y + q.z + q.w);
  }
  const unsigned mask = BUG == wrong_mask ? 0x0000ffffu : 0xffffffffu;
  for (int d = 16; d; d /= 2) {
    if (BUG == divergent_shuffle) {
      if (lane < d) v += __shfl_down_sync(mask, v, unsigned(d));
    } else if (BUG == inactive_lane) {
      if (lane < 24) v += __shfl_down_sync(0x00ffffffu, v, unsigned(d));
    } else {
      v += __shfl_down_sync(mask, v, unsigned(d));
    }
  }
  if (lane == 0) part[BUG == shared_overrun ? warp + 1 : warp] = v;
  if (BUG == shared_overrun && t == 0) part[0] = 0;
  if (BUG == divergent_barrier) {
    if (warp < 2) __syncthreads();
  } else if (BUG != missing_barrier) {
    __syncthreads();
  }
  float sum = 0;
  if (BUG == shared_rmw) {
    if (t == 0) extra[0] = 0;
    __syncthreads();
    if (lane == 0) extra[0] += part[warp];
    __syncthreads();
    sum = extra[0];
  } else if (BUG == missing_syncwarp) {
    extra[t] = part[lane % 4];  // rotate by one lane through shared memory
    sum = extra[warp * 32 + (lane + 1) % 32];
    for (int i = 1; i < 4; ++i) sum += part[(lane + 1 + i) % 4];
  } else if (BUG == uninit_shared) {
    if (t < BLOCK - 1) extra[t] = 0;
    __syncthreads();
    sum = extra[BLOCK - 1];
    for (int i = 0; i < BLOCK / 32; ++i) sum += part[i];
  } else {
    for (int i = 0; i < BLOCK / 32; ++i) sum += part[i];
  }
  if (BUG == missing_war_barrier) {  // `part` is used for a second sum without a barrier between
    if (lane == 0) part[warp] = 1;
    __syncthreads();
    for (int i = 0; i < BLOCK / 32; ++i) sum += part[i] - 1;
  }
  if (BUG == global_rmw) {
    if (t == 0) out[gridDim.x] += sum;  // all blocks add to one word
  }
  if (BUG == ldg_same_kernel) {
    if (t == 0) out[blockIdx.x] = sum, out[blockIdx.x] = __ldg(&out[blockIdx.x]);
  } else if (t == 0) {
    out[BUG == global_overrun ? blockIdx.x + 2 : blockIdx.x] = sum;
  }
}

// Blocks hand a running sum on through flags. Right only with a ticket and a release.
template <int BUG>
__global__ void chain(const float* x, float* out, unsigned* flags, unsigned* ticket) {
  GPU_SHARED(unsigned, tile, [1]);
  if (threadIdx.x == 0) tile[0] = BUG == order_by_index ? blockIdx.x : atomicAdd(ticket, 1u);
  __syncthreads();
  const unsigned t = tile[0];
  if (threadIdx.x) return;
  float sum = 0;
  for (int i = 0; i < BLOCK; ++i) sum += x[t * BLOCK + unsigned(i)];
  if (t) {
    while (gpu::load_acquire(&flags[t - 1]) == 0) gpu::spin_wait();
    sum += out[t - 1];
  }
  out[t] = sum;
  if (BUG == unreleased_flag) *const_cast<volatile unsigned*>(&flags[t]) = 1;
  else gpu::store_release(&flags[t], 1u);
}

static oplus::GpuQueue queue;
template <class T>
static T* device(const std::vector<T>& v) {
  T* p = nullptr;
  gpu::check(cudaMalloc(&p, v.size() * sizeof(T)));
  gpu::check(cudaMemcpy(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice));
  return p;
}

template <int BUG>
static bool right() {
  const int count = BUG == early_return ? 200 : 256;
  std::vector<float> x(256), out(3, 0.0f), want(3, 0.0f);
  for (int i = 0; i < 256; ++i) x[size_t(i)] = float(i % 7) + 1, want[size_t(i / BLOCK)] += i < count ? x[size_t(i)] : 0;
  if (BUG == global_rmw) want[2] = want[0] + want[1];
  float *dx = device(x), *dout = nullptr, *raw = nullptr;
  gpu::check(cudaMalloc(&dout, 3 * sizeof(float)));
  gpu::check(cudaMalloc(&raw, 256 * sizeof(float)));
  if (BUG != uninit_global) gpu::check(cudaMemset(dout, 0, 3 * sizeof(float)));
  if constexpr (BUG == order_by_index || BUG == unreleased_flag || BUG == none) {
    unsigned* flags = device(std::vector<unsigned>(3));
    gpu::launch(chain<BUG>, 2, BLOCK, oplus::Stream{&queue}, dx, dout, flags, flags + 2);
    gpu::check(cudaMemcpy(out.data(), dout, 8, cudaMemcpyDeviceToHost));
    gpu::check(cudaFree(flags));
    if (out[0] != want[0] || out[1] != want[0] + want[1]) return false;
  }
  if constexpr (BUG != order_by_index && BUG != unreleased_flag) {
    const float* from = BUG == host_pointer ? x.data() : BUG == uninit_global ? raw : dx;
    gpu::launch(block_sum<BUG>, 2, BLOCK, oplus::Stream{&queue}, from, dout, count);
    gpu::check(cudaMemcpy(out.data(), dout, (BUG == global_rmw ? 3 : 2) * sizeof(float), cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < 3; ++i)
      if (!(std::fabs((BUG == global_rmw || i < 2 ? out[i] : 0) - want[i]) < 1e-3f)) return false;
  }
  for (float* p : {dx, dout, raw}) gpu::check(cudaFree(p));
  return true;
}

template <int BUG>
static bool run(int bug) {
  if (bug == BUG) return right<BUG>();
  if constexpr (BUG + 1 < bug_count) return run<BUG + 1>(bug);
  return true;
}

int main(int argc, char** argv) {
  const int bug = argc > 1 ? std::atoi(argv[1]) : 0;
  if (bug >= bug_count) return 2;
  if (argc > 2) return std::printf("%s\n", names[bug]), 0;
  try {
    const bool ok = run<0>(bug);
    std::printf("%s\n", ok ? "right" : "wrong result");
    return ok ? 0 : 1;
  } catch (const oplus::Failure& failure) {
    std::printf("error: %s\n", failure.message.text);
    return 1;
  }
}
