// Emulated memory: shared memory of a block, and the functions of CUDA's runtime that native/cuda uses. Everything runs at
// once and in order, so streams and events have nothing to wait for. What the functions find wrong is kept as text and comes
// back through cudaGetErrorString, so that callers see status codes as from CUDA.
#include "internal.h"

using namespace simt;

namespace simt {

void* dynamic_shared() { return current()->block->arena; }

void* shared_slot(SharedSlot& s, size_t bytes, size_t align) {
  Engine& e = engine;
  if (s.launch != e.launch) {  // first use in this launch: give it a place in every block
    s.launch = e.launch;
    s.offset = (e.arena_used + align - 1) / align * align;
    e.static_bytes += bytes;
    if (e.static_bytes > 48u << 10 || e.static_bytes + e.dynamic_bytes > 227u << 10)
      fail("too much shared memory: %zu static + %zu dynamic bytes", e.static_bytes, e.dynamic_bytes);
    for (Block* b : e.slots) {
#if SIMT_ASAN
      __asan_unpoison_memory_region(b->arena + s.offset, bytes);
#endif
      memset(b->arena + s.offset, 0xff, bytes);
    }
    e.arena_used = (s.offset + bytes + redzone + 255) / 256 * 256;
    e.shared_regions.push_back({s.offset, bytes});
    check_slot(s.offset, bytes);
  }
  return current()->block->arena + s.offset;
}

void allow_dynamic_shared(const void* kernel, size_t bytes) {
  const Lock lock(engine.mutex);
  if (bytes > 227u << 10) fail("%zu bytes of dynamic shared memory: no GPU has more than 227 KiB", bytes);
  engine.dynamic_limit[kernel] = bytes;
}

static void check_range(const void* p, size_t bytes, const char* what) {
  const auto at = reinterpret_cast<uintptr_t>(p);
  auto it = engine.memory.upper_bound(at);
  if (it == engine.memory.begin() || at + bytes > std::prev(it)->first + std::prev(it)->second.bytes)
    fail("%s: %zu bytes at %p are not inside one cudaMalloc allocation", what, bytes, p);
}

static std::string& last_error() {
  static auto& text = *new std::string("no error");
  return text;
}

template <typename F>
static cudaError_t guarded(F&& f) {
  const Lock lock(engine.mutex);
  try {
    return f();
  } catch (const Error& error) {
    last_error() = error.what();
    return cudaErrorInvalidValue;
  }
}

}  // namespace simt

cudaError_t cudaMalloc(void** p, size_t bytes) {
  return guarded([&] {
    if (bytes > size_t{1} << 40 || posix_memalign(p, 256, bytes ? bytes : 1)) {
      last_error() = "out of memory";
      return cudaErrorMemoryAllocation;
    }
    memset(*p, 0xff, bytes);  // poison
    engine.memory[reinterpret_cast<uintptr_t>(*p)] = {bytes, nullptr};
    return cudaSuccess;
  });
}
cudaError_t cudaFree(void* p) {
  return guarded([&] {
    if (!p) return cudaSuccess;
    auto it = engine.memory.find(reinterpret_cast<uintptr_t>(p));
    if (it == engine.memory.end()) fail("cudaFree of %p, which cudaMalloc did not return", p);
    check_free(it->second);
    engine.memory.erase(it);
    free(p);
    return cudaSuccess;
  });
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind kind, cudaStream_t) {
  return guarded([&] {
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    if (to_device) check_range(to, n, "cudaMemcpy destination");
    if (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice) check_range(from, n, "cudaMemcpy source");
    memcpy(to, from, n);
    if (to_device) check_host_wrote(to, n);
    return cudaSuccess;
  });
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, n, kind, nullptr);
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t) {
  return guarded([&] {
    check_range(p, n, "cudaMemset");
    memset(p, value, n);
    check_host_wrote(p, n);
    return cudaSuccess;
  });
}
cudaError_t cudaMemset(void* p, int value, size_t n) { return cudaMemsetAsync(p, value, n, nullptr); }
cudaError_t cudaMallocHost(void** p, size_t bytes) {
  *p = malloc(bytes);
  return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void* p) {
  free(p);
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return cudaErrorInvalidValue;
  // Few multiprocessors, so that small tests take the paths that split the work over more blocks, and those that do not.
  *properties = {"emulated", size_t{8} << 30, 9, 0, 4};
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = nullptr;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t e) {
  const Lock lock(engine.mutex);
  return e == cudaSuccess ? "no error" : last_error().c_str();
}
