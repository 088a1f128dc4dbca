// Numbers stored otherwise: f32 to 16 bits and back (IEEE half and bfloat16, rounded to nearest even; NaN stays NaN, made quiet,
// sign and the payload's upper bits kept, whichever path runs), and pretrained weights from one way of storing them to another.
#include "core/op.h"
#include "core/partition.h"
#include "ops/stored_narrow.h"

namespace oplus::OPLUS_TARGET {
namespace {

enum Kind { kHalf = 0, kBfloat = 1 };

void expect_kind(int64_t kind) {
  if (kind != kHalf && kind != kBfloat)
    fail(OPLUS_BAD_SHAPE, "`kind` is %lld, expected 0 (f16) or 1 (bf16)", static_cast<long long>(kind));
}

void narrow(In<float> x, Out<uint16_t> y, int64_t kind, int64_t n) {
  volume(n);
  expect_kind(kind);
  expect("x", x, n);
  expect("y", y, n);
  for_pieces(n, [&](int64_t i, int64_t end) {
    uint8_t* to = reinterpret_cast<uint8_t*>(y.data + i);
    if (kind == kBfloat) ToBf16::narrow(x.data + i, end - i, to);
    else ToF16::narrow(x.data + i, end - i, to);
  });
}

void widen(In<uint16_t> x, Out<float> y, int64_t kind, int64_t n) {
  volume(n);
  expect_kind(kind);
  expect("x", x, n);
  expect("y", y, n);
  for_pieces(n, [&](int64_t i, int64_t end) {
    const uint8_t* from = reinterpret_cast<const uint8_t*>(x.data + i);
    if (kind == kBfloat) widen_row<Bf16>(from, 0, end - i, y.data + i);
    else widen_row<F16>(from, 0, end - i, y.data + i);
  });
}

// Rows pass through floats, a stretch of whole blocks of any kind at a time.
constexpr int64_t kStretch = 512;

void convert_stored(In<uint8_t> x, Out<uint8_t> y, int64_t from, int64_t to, int64_t N, int64_t C) {
  if (from == kStoredF32 && reinterpret_cast<uintptr_t>(x.data) % sizeof(float))
    fail(OPLUS_BAD_SHAPE, "%s", "`x` begins between two numbers, expected a multiple of 4 bytes");
  const auto convert = [&](auto stored) {
    using From = decltype(stored);
    const int64_t stride = row_bytes<From>(C);
    expect("x", x, volume(N, stride));
    with_narrowed(to, [&](auto narrowed) {
      using To = decltype(narrowed);
      using S = typename To::Stored;
      const int64_t to_stride = row_bytes<S>(C);
      expect("y", y, volume(N, to_stride));
      for_rows(N, C, [&](int64_t n, int64_t end) {
        alignas(64) float numbers[kStretch];
        for (; n < end; ++n)
          for (int64_t i = 0; i < C; i += kStretch) {
            const int64_t count = at_most(kStretch, C - i);
            widen_row<From>(x.data + n * stride, i, count, numbers);
            To::narrow(numbers, count, y.data + n * to_stride + i / S::kNumbers * S::kBytes);
          }
      });
    });
  };
  if (from == kStoredF32) convert(F32{});
  else with_stored(from, convert);
}
double convert_stored_cost(In<uint8_t>, Out<uint8_t>, int64_t, int64_t, int64_t N, int64_t C) {
  return static_cast<double>(N) * static_cast<double>(C);
}

}  // namespace

static constexpr oplus_op list[] = {op<narrow>("narrow"), op<widen>("widen"),
                                    op<convert_stored, convert_stored_cost>("convertStored")};
extern constinit const Ops convert_ops(list);

}  // namespace oplus::OPLUS_TARGET
