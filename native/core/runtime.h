// Memory, and the queue of work on it. One Queue for each device and JavaScript environment; what a cudaStream_t is, for
// both devices: work runs in order, off the calling thread, and the call that queued it returns at once.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "backend.h"
#include "cache.h"
#include "mapping.h"

namespace oplus {

class Queue;

// Memory on a device. Shared by its JavaScript handle and by queued work, so disposing right after a call is safe.
struct Buffer : std::enable_shared_from_this<Buffer> {
  Buffer(std::shared_ptr<Queue> queue, int64_t bytes);
  Buffer(std::shared_ptr<Queue> queue, std::shared_ptr<const Mapping> file, int64_t offset, int64_t bytes);  // read only
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  const std::shared_ptr<Queue> queue;
  void* data = nullptr;
  const int64_t bytes;
  const std::shared_ptr<const Mapping> file;  // whose memory this is; null: its own
  // Why the contents cannot be trusted: the message of the operation that failed to write them. Only touched by work on
  // the queue (or inline, when the queue is idle).
  std::unique_ptr<std::string> failure;
};
using BufferRef = std::shared_ptr<Buffer>;

// One call of an operation. Its buffers are held by whoever makes it, for as long as it runs inline; a call that has to wait
// takes a share in each (Queue::Task).
struct Call {
  static constexpr int kMaxArguments = 32;
  const oplus_op* op = nullptr;
  int count = 0;
  oplus_value values[kMaxArguments] = {};
  Buffer* buffers[kMaxArguments] = {};  // null where the argument is a number or was left out
  uint32_t read = 0, written = 0;       // bit i: argument i is an input, an output (or both)
};

class Queue {
 public:
  Queue(const oplus_backend* backend, int backend_index, int32_t device, std::string name);
  ~Queue();

  void submit(const Call& call);
  void submit(std::function<void()> work);  // runs after everything queued so far, on the queue's thread
  bool idle() const { return pending_.load(std::memory_order_acquire) == 0; }
  void close();  // drops what has not started and joins the thread; later submits are dropped

  const std::string name;  // "cpu", "cuda:0"
  const oplus_backend* const backend;
  const int backend_index;  // in backends()
  bool on_host() const { return backend_index == 0; }
  void* stream() const { return stream_; }
  Cache& cache() { return cache_; }

 private:
  struct Task {
    std::unique_ptr<Call> call;
    std::vector<BufferRef> shares;
    std::function<void()> work;
  };
  void push(Task&& task);
  void loop();
  void run(const Call& call);

  void* stream_ = nullptr;
  Cache cache_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> tasks_;
  std::atomic<int64_t> pending_{0};
  bool closing_ = false, closed_ = false;
  std::thread worker_;
};

// ---- what may run inline -------------------------------------------------------------------
// On an idle queue, work of at most this many multiply-adds or elements runs on the calling thread: handing it to the
// queue's thread and being woken again costs 15–60 µs (bench/inline.mjs, in docs/architecture.md), in which the CPU does
// about this much. On the GPU only the launch happens inline, so the same rule keeps long launches' waits off the caller.
constexpr double kInlineCost = 1 << 18;

}  // namespace oplus
