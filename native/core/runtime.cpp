#include "runtime.h"

#include "error.h"

namespace oplus {
namespace {

[[noreturn]] void raise(const std::string& where, int status, const oplus_message& message) {
  throw Error(status == OPLUS_OUT_OF_MEMORY ? "ERR_OUT_OF_MEMORY" : "ERR_DEVICE", where + ": " + message.text);
}

}  // namespace

Buffer::Buffer(std::shared_ptr<Queue> on, int64_t size) : queue(std::move(on)), bytes(size) {
  int status;
  oplus_message message{};
  data = queue->cache().take(bytes, &status, &message);
  if (!data) raise(queue->name + ": new buffer of " + std::to_string(bytes) + " bytes", status, message);
}

Buffer::Buffer(std::shared_ptr<Queue> on, std::shared_ptr<const Mapping> from, int64_t offset, int64_t size)
    : queue(std::move(on)), data(const_cast<char*>(from->at(offset, size))), bytes(size), file(std::move(from)) {}

Buffer::~Buffer() {
  if (data && !file) queue->cache().give(data, bytes);
}

Queue::Queue(const oplus_backend* on, int index, int32_t device, std::string title)
    : name(std::move(title)), backend(on), backend_index(index) {
  oplus_message message{};
  const int status = backend->open(device, &stream_, &message);
  if (status != OPLUS_OK) raise(name, status, message);
  cache_.open(backend, stream_);
}

Queue::~Queue() {
  close();
  cache_.trim();
  backend->close(stream_);
}

void Queue::close() {
  std::deque<Task> dropped;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) return;
    closed_ = closing_ = true;
    dropped.swap(tasks_);
  }
  wake_.notify_all();
  if (worker_.joinable()) {
    // The last share in a queue may be dropped by its own thread, which then ends by itself.
    if (worker_.get_id() == std::this_thread::get_id()) worker_.detach();
    else worker_.join();
  }
  oplus_message message{};
  backend->synchronize(stream_, &message);  // the device may still be reading memory that is about to be freed
}

void Queue::submit(const Call& call) {
  if (idle() && call.op->cost(call.values) <= kInlineCost) return run(call);
  Task task{std::make_unique<Call>(call), {}, {}};
  for (int i = 0; i < call.count; ++i)
    if (call.buffers[i]) task.shares.push_back(call.buffers[i]->shared_from_this());
  push(std::move(task));
}

void Queue::submit(std::function<void()> work) { push({nullptr, {}, std::move(work)}); }

void Queue::push(Task&& task) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closing_) return;
    if (!worker_.joinable()) worker_ = std::thread([this] { loop(); });
    pending_.fetch_add(1, std::memory_order_relaxed);
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
}

void Queue::loop() {
  for (;;) {
    Task task;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] { return closing_ || !tasks_.empty(); });
      if (closing_) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    if (task.call) run(*task.call);
    else task.work();
    task = {};  // let go of the buffers before the queue counts as idle
    pending_.fetch_sub(1, std::memory_order_release);
  }
}

// An input that failed makes its reader fail for the same reason, so the first failure is the one that a read reports.
void Queue::run(const Call& call) {
  std::string failure;
  for (int i = 0; i < call.count; ++i)
    if (call.buffers[i] && call.buffers[i]->failure && (call.read >> i & 1)) failure = *call.buffers[i]->failure;
  if (failure.empty()) {
    oplus_message message;
    message.text[0] = 0;  // not all 512 bytes, for each of a streaming step's operations
    const int status = call.op->run(stream_, call.values, &message);
    if (status != OPLUS_OK) {
      const char* kind = status == OPLUS_OUT_OF_MEMORY ? "ERR_OUT_OF_MEMORY"
                         : status == OPLUS_BAD_SHAPE   ? "ERR_SHAPE"
                                                       : "ERR_DEVICE";
      failure = std::string(kind) + " " + call.op->name + ": " + message.text;
    }
  }
  for (int i = 0; i < call.count; ++i) {
    if (!call.buffers[i] || !(call.written >> i & 1)) continue;
    if (!failure.empty()) call.buffers[i]->failure = std::make_unique<std::string>(failure);
    else if (call.buffers[i]->failure) call.buffers[i]->failure.reset();
  }
}

}  // namespace oplus
