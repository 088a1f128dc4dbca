// The first weight that is not a finite number, or whose block's scale is not: a damaged file is named by the place of the
// damage.
#include "core/op.h"
#include "core/partition.h"
#include "ops/stored.h"

namespace oplus::OPLUS_TARGET {
namespace {

struct Scales {  // where a kind keeps its 16-bit floats, and which bits of them are the exponent
  int64_t numbers, bytes, first, second;
  uint16_t exponent;
};
constexpr Scales kScales[] = {{1, 4, 2, 2, 0x7f80},        {1, 2, 0, 0, 0x7c00},   {1, 2, 0, 0, 0x7f80},
                              {32, 34, 0, 0, 0x7c00},      {32, 18, 0, 0, 0x7c00}, {256, 144, 0, 2, 0x7c00},
                              {256, 210, 208, 208, 0x7c00}};

void first_fault(In<uint8_t> w, Out<int32_t> found, int64_t kind, int64_t n) {
  if (kind < 0 || kind > kStoredQ6K)
    fail(OPLUS_BAD_SHAPE, "there is no kind %lld of stored weights", static_cast<long long>(kind));
  const Scales scales = kScales[kind];
  if (n % scales.numbers) fail(OPLUS_BAD_SHAPE, "%lld numbers, expected whole blocks", static_cast<long long>(n));
  const int64_t blocks = n / scales.numbers;
  expect("w", w, volume(blocks, scales.bytes));
  expect("found", found, 1);
  int64_t first = INT64_MAX;
  for_pieces(blocks, [&](int64_t i, int64_t end) {
    const auto fault = [&](int64_t block) {
      const uint8_t* at = w.data + block * scales.bytes;
      return (load_u16(at + scales.first) & scales.exponent) == scales.exponent ||
             (load_u16(at + scales.second) & scales.exponent) == scales.exponent;
    };
    for (; i < end; i += 64) {  // whole stretches first, without a branch for each
      bool any = false;
      for (int64_t j = i; j < at_most(end, i + 64); ++j) any |= fault(j);
      if (!any) continue;
      while (!fault(i)) ++i;
      int64_t known = __atomic_load_n(&first, __ATOMIC_RELAXED);
      while (i < known && !__atomic_compare_exchange_n(&first, &known, i, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      }
      return;
    }
  });
  const int64_t number = first == INT64_MAX ? -1 : first * scales.numbers;
  found[0] = static_cast<int32_t>(at_most(number, INT32_MAX));
}

}  // namespace

static constexpr oplus_op list[] = {op<first_fault>("firstFault")};
extern constinit const Ops first_fault_ops(list);

}  // namespace oplus::OPLUS_TARGET
