// One pool of threads for the process. Why our own and not OpenMP: docs/architecture.md, "Threads".
#pragma once
#include <cstdint>
#include <type_traits>

namespace oplus {

int threads();            // workers that take part, the caller included
void set_threads(int n);  // 0: as many as the process may use

// Between two looks at what another thread will change: a few pauses, then the processor is offered to others, because the
// thread waited for may be one of them.
void wait_briefly(int looks);
int64_t nanoseconds();  // of a clock that never goes back

namespace detail {
void parallel(int tasks, void (*body)(void* context, int task), void* context);
}

// f(i) for i in [0, tasks), on the pool and the caller; returns when all are done. Runs inline when there is one task, when
// called from inside another parallel_for, or when another thread holds the pool. What f throws is thrown to the caller. Which
// thread runs which task is not fixed, so a result may only depend on i.
template <typename F>
static inline void parallel_for(int tasks, F&& f) {
  using Function = std::remove_reference_t<F>;
  if (tasks <= 1) {
    for (int i = 0; i < tasks; ++i) f(i);
    return;
  }
  detail::parallel(
      tasks, [](void* context, int task) { (*static_cast<Function*>(context))(task); },
      const_cast<std::remove_const_t<Function>*>(&f));
}

}  // namespace oplus
