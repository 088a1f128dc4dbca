// The CUDA side of core/backend.h: devices, streams and memory. Calls come from several threads of the host, so each one
// names its device first. Nothing here throws past the table or ends the process: what goes wrong is a status and a message.
#include <cstring>
#include <mutex>

#include "gpu.h"

namespace oplus::OPLUS_TARGET {

const oplus_op* const* all_ops();  // written by cmake/ops_table.cmake

namespace {

constexpr int kOldest = 75;  // compute capability × 10: the oldest that the kernels are built for (Turing)

// Uploads go through page-locked memory of our own: the caller may reuse its memory at once, and the copy runs at full speed
// while the host goes on. A few slots, each with an event that says when its last copy has been done.
constexpr int kSlots = 4;
constexpr int64_t kSlotBytes = 1 << 20;

struct Queue : GpuQueue {
  std::mutex staging;  // memory of new buffers may be overwritten from another thread than the one that runs the work
  char* slots = nullptr;
  cudaEvent_t done[kSlots] = {};
  int next = 0;
};

Queue& queue_of(void* stream) { return *static_cast<Queue*>(stream); }

// Runs f; what it throws becomes a status and a message.
template <typename F>
int guarded(oplus_message* error, F&& f) {
  try {
    f();
    return OPLUS_OK;
  } catch (const Failure& failure) {
    if (error) *error = failure.message;
    return failure.status;
  } catch (const std::bad_alloc&) {
    if (error) std::snprintf(error->text, sizeof error->text, "out of memory");
    return OPLUS_OUT_OF_MEMORY;
  }
}

__global__ void probe(int* nothing) {
  if (nothing) *nothing = 1;
}

int count(int32_t* devices, oplus_message* error) {
  *devices = 0;
  return guarded(error, [&] {
    int n = 0;
    gpu::check(cudaGetDeviceCount(&n));
    *devices = n;
  });
}

int describe(int32_t device, oplus_device_info* info, oplus_message* error) {
  return guarded(error, [&] {
    cudaDeviceProp properties;
    gpu::check(cudaGetDeviceProperties(&properties, device));
    std::snprintf(info->model, sizeof info->model, "%.127s", properties.name);
    info->memory = static_cast<int64_t>(properties.totalGlobalMem);
    info->capability = 10 * properties.major + properties.minor;
  });
}

void close(void* stream) {
  Queue* q = &queue_of(stream);
  cudaSetDevice(q->device);
  if (q->stream) cudaStreamSynchronize(q->stream);
  for (cudaEvent_t event : q->done)
    if (event) cudaEventDestroy(event);
  if (q->slots) cudaFreeHost(q->slots);
  if (q->scratch) cudaFree(q->scratch);
  if (q->counters) cudaFree(q->counters);
  if (q->stream) cudaStreamDestroy(q->stream);
  delete q;
}

int open(int32_t device, void** stream, oplus_message* error) {
  *stream = nullptr;
  Queue* q = nullptr;
  const int status = guarded(error, [&] {
    gpu::check(cudaSetDevice(device));
    cudaDeviceProp properties;
    gpu::check(cudaGetDeviceProperties(&properties, device));
    if (10 * properties.major + properties.minor < kOldest)
      fail(OPLUS_FAILED, "%s has compute capability %d.%d, expected at least %d.%d", properties.name, properties.major,
           properties.minor, kOldest / 10, kOldest % 10);
    q = new Queue;
    q->device = device;
    q->processors = properties.multiProcessorCount;
    gpu::check(cudaStreamCreateWithFlags(&q->stream, cudaStreamNonBlocking));
    gpu::launch(probe, dim3(1), dim3(1), Stream{q},
                static_cast<int*>(nullptr));  // fails here if this GPU has no kernels built for it
    gpu::check(cudaStreamSynchronize(q->stream));
    *stream = q;
  });
  if (status != OPLUS_OK && q) close(q);
  return status;
}

int allocate(void* stream, int64_t bytes, void** data, oplus_message* error) {
  *data = nullptr;
  return guarded(error, [&] {
    gpu::check(cudaSetDevice(queue_of(stream).device));
    gpu::check(cudaMalloc(data, static_cast<size_t>(bytes > 0 ? bytes : 1)));
  });
}

void release(void* stream, void* data) {  // cudaFree waits until no work uses the memory
  cudaSetDevice(queue_of(stream).device);
  cudaFree(data);
}

int upload(void* stream, void* to, const void* from, int64_t bytes, oplus_message* error) {
  return guarded(error, [&] {
    Queue& q = queue_of(stream);
    const std::lock_guard<std::mutex> lock(q.staging);
    gpu::check(cudaSetDevice(q.device));
    if (!q.slots && bytes > 0) {
      for (cudaEvent_t& event : q.done)
        if (!event) gpu::check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
      void* memory = nullptr;
      gpu::check(cudaMallocHost(&memory, static_cast<size_t>(kSlots * kSlotBytes)));
      q.slots = static_cast<char*>(memory);
    }
    for (int64_t at = 0; at < bytes; at += kSlotBytes) {
      const auto part = static_cast<size_t>(bytes - at < kSlotBytes ? bytes - at : kSlotBytes);
      char* slot = q.slots + q.next * kSlotBytes;
      gpu::check(cudaEventSynchronize(q.done[q.next]));
      std::memcpy(slot, static_cast<const char*>(from) + at, part);
      gpu::check(cudaMemcpyAsync(static_cast<char*>(to) + at, slot, part, cudaMemcpyHostToDevice, q.stream));
      gpu::check(cudaEventRecord(q.done[q.next], q.stream));
      q.next = (q.next + 1) % kSlots;
    }
  });
}

int download(void* stream, void* to, const void* from, int64_t bytes, oplus_message* error) {
  return guarded(error, [&] {
    Queue& q = queue_of(stream);
    gpu::check(cudaSetDevice(q.device));
    if (bytes > 0) gpu::check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, q.stream));
    gpu::check(cudaStreamSynchronize(q.stream));
  });
}

int synchronize(void* stream, oplus_message* error) {
  return guarded(error, [&] {
    Queue& q = queue_of(stream);
    gpu::check(cudaSetDevice(q.device));
    gpu::check(cudaStreamSynchronize(q.stream));
  });
}

}  // namespace

const oplus_backend* backend() {
  static const oplus_backend table = {OPLUS_ABI, count,  describe, open,        close,    allocate,
                                      release,   upload, download, synchronize, all_ops()};
  return &table;
}

}  // namespace oplus::OPLUS_TARGET

extern "C" OPLUS_EXPORT const oplus_backend* oplus_backend_table(uint32_t abi) {
  return abi == OPLUS_ABI ? oplus::OPLUS_TARGET::backend() : nullptr;
}
