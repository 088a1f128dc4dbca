// Freed memory kept for reuse, by size. Large blocks that go back to the system come back as pages to be faulted in and
// cleared: for a 134 MB result that costs more than computing it.
//
// One cache for each queue: on the GPU a block may still be in use by work launched earlier on the same stream, which is
// safe for later work on that stream and no other.
#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "backend.h"

namespace oplus {

class Cache {
 public:
  struct Use {
    int64_t bytes, peak_bytes, buffers, cached_bytes;
  };

  void open(const oplus_backend* backend, void* stream);
  // Null on failure, with status and error set; frees cached blocks and tries again before it gives up.
  void* take(int64_t bytes, int* status, oplus_message* error);
  void give(void* data, int64_t bytes);
  void trim();  // everything cached goes back to the system
  Use use() const;

 private:
  static int64_t rounded(int64_t bytes);
  void count(int64_t bytes);  // one more buffer is held; under the lock
  void trim_to(int64_t limit);

  const oplus_backend* backend_ = nullptr;
  void* stream_ = nullptr;
  mutable std::mutex mutex_;
  std::map<int64_t, std::vector<void*>> free_;  // by rounded size
  int64_t bytes_ = 0, peak_ = 0, buffers_ = 0, cached_ = 0;
};

}  // namespace oplus
