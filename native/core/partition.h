// How CPU operations divide their work: pieces whose borders depend on the sizes only, never on the number of threads, so
// a result has the same bits on one thread and on sixty-four (but for `relay`, whose users say what they do). Included after
// op.h; needs OPLUS_TARGET.
#pragma once
#include "op.h"
#include "pool.h"

namespace oplus::OPLUS_TARGET {

static inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

// Elements a task. About 10 µs of memory traffic: waking a thread costs less than that.
constexpr int64_t kPiece = 32768;

// f(begin, end) over [0, n). For work that is independent element by element; small sizes stay on the caller.
template <typename F>
static inline void for_pieces(int64_t n, F&& f) {
  if (n <= 0) return;
  if (n < 2 * kPiece) return f(int64_t{0}, n);
  parallel_for(static_cast<int>(divide_up(n, kPiece)), [&](int i) { f(i * kPiece, at_most(n, (i + 1) * kPiece)); });
}

// f(row, end) over rows of `width` elements each, about a piece a task.
template <typename F>
static inline void for_rows(int64_t rows, int64_t width, F&& f) {
  if (rows <= 0) return;
  const int64_t step = at_least(1, kPiece / at_least(1, width));
  if (rows < 2 * step) return f(int64_t{0}, rows);
  parallel_for(static_cast<int>(divide_up(rows, step)), [&](int i) { f(i * step, at_most(rows, (i + 1) * step)); });
}

// Memory for the length of a call, aligned to a cache line. Taken on the calling thread, where an exception can be caught.
class Scratch {
 public:
  explicit Scratch(int64_t floats) : data_(static_cast<float*>(::operator new(bytes(floats), std::align_val_t{64}))) {}
  ~Scratch() { ::operator delete(data_, std::align_val_t{64}); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* data() const { return data_; }

 private:
  static size_t bytes(int64_t floats) { return sizeof(float) * static_cast<size_t>(at_least(floats, 1)); }
  float* data_;
};

// f(memory, task) for every task; each thread brings `floats` of its own, given once and not once a task. alone: on the
// caller, for work too small to share.
template <typename F>
static inline void parallel_with_scratch(int64_t tasks, int64_t floats, bool alone, F&& f) {
  if (tasks <= 0) return;
  const int64_t workers = alone ? 1 : at_most(tasks, threads());
  const int64_t stride = divide_up(floats, 16) * 16;
  Scratch memory(workers * stride);
  int64_t next = 0;
  parallel_for(static_cast<int>(workers), [&](int worker) {
    for (int64_t task; (task = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < tasks;) f(memory.data() + worker * stride, task);
  });
}

// Tasks in a chain, where each needs a little of the one before it. A thread takes the next task, makes `prepare(memory, task)`
// at once, waits for its turn, makes `turn(memory, task)` (turns come one at a time, in the order of tasks), and then
// `finish(memory, task)` while others have theirs. None of the three may throw, and prepare may write to `memory` alone: a thread
// that waits for longer than preparing takes prepares the task whose turn it is itself and takes that turn, so that nobody waits
// for a thread that the system has put aside while preparing; on a busy machine that was a scheduler's tick for every few tasks.
template <typename P, typename T, typename F>
static inline void relay(int64_t tasks, int64_t floats, P&& prepare, T&& turn, F&& finish) {
  const int64_t workers = at_most(tasks, threads()), stride = divide_up(floats, 16) * 16;
  Scratch memory(2 * workers * stride);
  alignas(64) int64_t taken = 0;   // tasks that have a thread
  alignas(64) int64_t begun = 0;   // turns that have begun: who moves this from `task` to `task + 1` takes the turn
  alignas(64) int64_t passed = 0;  // turns that are over
  const auto take_turn = [&](float* own, int64_t task) {
    int64_t expected = task;
    if (!__atomic_compare_exchange_n(&begun, &expected, task + 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) return;
    turn(own, task);
    __atomic_store_n(&passed, task + 1, __ATOMIC_RELEASE);
    finish(own, task);
  };
  parallel_for(static_cast<int>(workers), [&](int worker) {
    float *own = memory.data() + 2 * worker * stride, *other = own + stride;
    for (int64_t task; (task = __atomic_fetch_add(&taken, 1, __ATOMIC_RELAXED)) < tasks;) {
      const int64_t start = nanoseconds();
      prepare(own, task);
      const int64_t now = nanoseconds();
      const int64_t patience = 2 * (now - start);
      for (int64_t at, seen = -1, since = now, looks = 0; (at = __atomic_load_n(&passed, __ATOMIC_ACQUIRE)) < task; ++looks) {
        if (at != seen) seen = at, since = nanoseconds(), looks = 0;
        if (looks % 64 == 63 && nanoseconds() - since > patience && __atomic_load_n(&begun, __ATOMIC_RELAXED) == at)
          prepare(other, at), take_turn(other, at);
        else wait_briefly(static_cast<int>(at_most(looks, INT32_MAX)));
      }
      take_turn(own, task);
    }
  });
}

// Σ f(begin, end) over the pieces of [0, n): partial sums of fixed pieces, added in order.
template <typename F>
static inline double sum_pieces(int64_t n, F&& f) {
  if (n <= kPiece) return n > 0 ? static_cast<double>(f(int64_t{0}, n)) : 0.0;
  const int64_t pieces = divide_up(n, kPiece);
  Scratch partial(pieces);
  auto one = [&](int i) { partial.data()[i] = f(i * kPiece, at_most(n, (i + 1) * kPiece)); };
  if (pieces == 2) one(0), one(1);
  else parallel_for(static_cast<int>(pieces), one);
  double total = 0;
  for (int64_t i = 0; i < pieces; ++i) total += static_cast<double>(partial.data()[i]);
  return total;
}

}  // namespace oplus::OPLUS_TARGET
