// ggml starts new threads for every pass and lets them spin; two that share a core are ten times slower than two that do not.
// Preloaded, this gives each a core of its own, which is the best that its user could do: the thread that starts them the
// first, the others the next ones. OPLUS_PIN says how many there are.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int create(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);

static void pin(pthread_t thread, int place) {
  static cpu_set_t allowed;
  if (CPU_COUNT(&allowed) == 0) sched_getaffinity(getpid(), sizeof allowed, &allowed);
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &allowed) || place-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    pthread_setaffinity_np(thread, sizeof one, &one);
    return;
  }
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) {
  static int next;
  const int made = ((create*)dlsym(RTLD_NEXT, "pthread_create"))(thread, attributes, start, argument);
  const char* threads = getenv("OPLUS_PIN");
  Dl_info from;
  if (made == 0 && threads && atoi(threads) > 1 && dladdr((void*)start, &from) && strstr(from.dli_fname, "ggml")) {
    pin(pthread_self(), 0);
    pin(*thread, 1 + next++ % (atoi(threads) - 1));
  }
  return made;
}
