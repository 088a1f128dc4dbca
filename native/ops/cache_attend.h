// The rules of a bounded cache, for both devices (algorithms D.1, D.2; binding.d.ts says what each operation does).
#pragma once
#include <cstdint>

#include "../core/host_device.h"

namespace oplus::OPLUS_TARGET {

// What becomes of an entry too many.
enum CacheRule {
  kNeverEvict,          // there is always room
  kEvictOldest,         // the lowest position goes
  kEvictLeastAttended,  // the lowest score goes
  kEvictOutside,        // the caller chooses (cachePut)
};

// Which entries may go: not the first `sinks` positions of the sequence, not its `recent` newest.
HOST_DEVICE inline bool may_go(int64_t position, int64_t newest, int64_t sinks, int64_t recent) {
  return position >= sinks && position <= newest - recent;
}

// Whether an entry goes before another: the lower score, on a tie the lower position.
HOST_DEVICE inline bool goes_before(float score, int64_t position, float other, int64_t other_position) {
  return score < other || (score == other && position < other_position);
}

}  // namespace oplus::OPLUS_TARGET
