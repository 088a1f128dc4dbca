#include "cache.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace oplus {
namespace {

// At most this much is kept beyond what is in use, or as much as is in use if that is more: a training step frees
// and takes the same blocks over and over, an idle process should not sit on gigabytes.
constexpr int64_t kKeep = int64_t{512} << 20;

bool poisoned() {  // tests: fresh memory is NaN, so that reading what nobody wrote shows
  static const bool on = [] {
    const char* text = std::getenv("OPLUS_POISON");
    return text && *text && *text != '0';
  }();
  return on;
}

}  // namespace

void Cache::open(const oplus_backend* backend, void* stream) {
  backend_ = backend;
  stream_ = stream;
}

int64_t Cache::rounded(int64_t bytes) {
  // Classes an eighth of a power of two apart: at most 12.5 % unused, few enough classes to be found again.
  int64_t step = 256;
  while (step * 8 < bytes) step *= 2;
  return std::max<int64_t>(256, (bytes + step - 1) / step * step);
}

void* Cache::take(int64_t bytes, int* status, oplus_message* error) {
  const int64_t size = rounded(bytes);
  void* data = nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = free_.find(size);
    if (found != free_.end() && !found->second.empty()) {
      data = found->second.back();
      found->second.pop_back();
      cached_ -= size;
      count(bytes);
    }
  }
  *status = OPLUS_OK;
  if (!data) {
    *status = backend_->allocate(stream_, size, &data, error);
    if (*status == OPLUS_OUT_OF_MEMORY) {
      trim();
      *status = backend_->allocate(stream_, size, &data, error);
    }
    if (*status != OPLUS_OK) return nullptr;
    std::lock_guard<std::mutex> lock(mutex_);
    count(bytes);
  }
  if (poisoned()) {
    std::vector<unsigned char> nan(static_cast<size_t>(bytes), 0xff);
    backend_->upload(stream_, data, nan.data(), bytes, error);
  }
  return data;
}

void Cache::count(int64_t bytes) {
  bytes_ += bytes;
  peak_ = std::max(peak_, bytes_);
  ++buffers_;
}

void Cache::give(void* data, int64_t bytes) {
  const int64_t size = rounded(bytes);
  int64_t limit;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    bytes_ -= bytes;
    --buffers_;
    free_[size].push_back(data);
    cached_ += size;
    limit = std::max(kKeep, bytes_);
    if (cached_ <= limit) return;
  }
  trim_to(limit);
}

void Cache::trim() { trim_to(0); }

void Cache::trim_to(int64_t limit) {  // the largest blocks go first
  std::vector<void*> freed;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto it = free_.rbegin(); it != free_.rend() && cached_ > limit; ++it)
      while (!it->second.empty() && cached_ > limit) {
        freed.push_back(it->second.back());
        it->second.pop_back();
        cached_ -= it->first;
      }
  }
  for (void* data : freed) backend_->release(stream_, data);
}

Cache::Use Cache::use() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return {bytes_, peak_, buffers_, cached_};
}

}  // namespace oplus
