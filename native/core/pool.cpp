#include "pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
static inline void relax() { _mm_pause(); }
#else
static inline void relax() { std::this_thread::yield(); }
#endif
#ifdef __linux__
#include <sched.h>
#endif

namespace oplus {
namespace {

int hardware() {
#ifdef __linux__
  cpu_set_t set;
  if (!sched_getaffinity(0, sizeof set, &set)) return std::max(1, CPU_COUNT(&set));  // obeys taskset and containers' cpusets
#endif
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

int wanted() {
  const char* text = std::getenv("OPLUS_THREADS");
  const int n = text ? std::atoi(text) : 0;
  return std::min(n > 0 ? n : hardware(), 256);
}

// Workers spin for a few microseconds and then sleep: a library inside a server must not burn cores that it does not use,
// and two spinning threads packed onto one core stop each other for whole scheduler ticks.
class Pool {
 public:
  static Pool& get() {
    static Pool* pool = new Pool;  // never destroyed: at exit a worker may still be running a kernel
    return *pool;
  }

  std::atomic<int> want{wanted()};

  void run(int tasks, void (*body)(void*, int), void* context) {
    const int team = std::min(tasks, want.load(std::memory_order_relaxed));
    if (team <= 1 || nested_ || !busy_.try_lock()) {
      for (int i = 0; i < tasks; ++i) body(context, i);
      return;
    }
    std::lock_guard<std::mutex> own(busy_, std::adopt_lock);
    while (workers_ < team - 1 && spawn()) {
    }
    const int helpers = std::min(workers_, team - 1);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      body_ = body;
      context_ = context;
      tasks_ = tasks;
      helpers_ = helpers;
      next_.store(0, std::memory_order_relaxed);
      active_.store(helpers, std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    work();
    for (int looks = 0; active_.load(std::memory_order_acquire); ++looks) wait_briefly(looks);
    if (thrown_) std::rethrow_exception(std::exchange(thrown_, nullptr));
  }

 private:
  // What a task throws on any thread is thrown again to the caller: out of a thread's function it would end the process.
  void work() {
    nested_ = true;
    try {
      for (int i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) body_(context_, i);
    } catch (...) {
      next_.store(tasks_, std::memory_order_relaxed);
      std::lock_guard<std::mutex> lock(mutex_);
      if (!thrown_) thrown_ = std::current_exception();
    }
    nested_ = false;
  }

  bool spawn() {  // false where the system gives no more threads: then fewer take part
    const int id = workers_;
    const unsigned seen = generation_.load(std::memory_order_acquire);
    try {
      std::thread([this, id, seen] { loop(id, seen); }).detach();
    } catch (const std::exception&) {
      return false;
    }
    ++workers_;
    return true;
  }

  void loop(int id, unsigned last) {
    for (;;) {
      for (int spin = 0; spin < 2048 && generation_.load(std::memory_order_acquire) == last; ++spin) relax();
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != last; });
        last = generation_.load(std::memory_order_relaxed);
        if (id >= helpers_) continue;
      }
      work();
      active_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::mutex busy_, mutex_;
  std::condition_variable wake_;
  std::atomic<unsigned> generation_{0};
  std::atomic<int> next_{0}, active_{0};
  int tasks_ = 0, helpers_ = 0, workers_ = 0;
  void (*body_)(void*, int) = nullptr;
  void* context_ = nullptr;
  std::exception_ptr thrown_;
  static thread_local bool nested_;
};
thread_local bool Pool::nested_ = false;

}  // namespace

void wait_briefly(int looks) {
  if (looks < 4096) relax();
  else std::this_thread::yield();
}

int64_t nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int threads() { return Pool::get().want.load(std::memory_order_relaxed); }
void set_threads(int n) { Pool::get().want = n > 0 ? std::min(n, 256) : wanted(); }
void detail::parallel(int tasks, void (*body)(void*, int), void* context) { Pool::get().run(tasks, body, context); }

}  // namespace oplus
