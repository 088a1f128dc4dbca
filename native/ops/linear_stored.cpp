// A linear map and an embedding whose weights stay as a pretrained model's file stores them.
#include "core/partition.h"
#include "stored_product.h"

namespace oplus::OPLUS_TARGET {
namespace {

void linear_stored(In<float> x, In<uint8_t> w, MaybeIn<float> b, Out<float> y, int64_t kind, int64_t N, int64_t C, int64_t F) {
  expect("x", x, volume(N, C));
  expect("b", b, volume(F));
  expect("y", y, volume(N, F));
  if (kind == kStoredF32) {
    expect("w", w, volume(F, C, 4));
    if (reinterpret_cast<uintptr_t>(w.data) % 4)
      fail(OPLUS_BAD_SHAPE, "%s", "`w` begins between two numbers, expected a multiple of 4 bytes");
    if (N >= 1 && N <= 4) return stored_dot_product<F32>(x.data, w.data, b.data, y.data, N, C, F);
    return product({{x.data, C, true}, {reinterpret_cast<const float*>(w.data), C, true}, b.data, y.data, N, F, C});
  }
  with_stored(kind, [&](auto stored) {
    using S = decltype(stored);
    expect("w", w, volume(F, row_bytes<S>(C)));
    stored_product<S>(x.data, w.data, b.data, y.data, N, C, F);
  });
}
double linear_stored_cost(In<float>, In<uint8_t>, MaybeIn<float>, Out<float>, int64_t, int64_t N, int64_t C, int64_t F) {
  return static_cast<double>(N) * static_cast<double>(C) * static_cast<double>(F);
}

void embed_stored(In<int32_t> ids, In<uint8_t> w, Out<float> y, int64_t kind, int64_t N, int64_t V, int64_t C) {
  expect("ids", ids, N);
  expect("y", y, volume(N, C));
  for (int64_t n = 0; n < N; ++n)
    if (ids[n] < 0 || ids[n] >= V) fail(OPLUS_BAD_SHAPE, "token %d, expected one below %lld", ids[n], static_cast<long long>(V));
  if (kind == kStoredF32) {
    expect("w", w, volume(V, C, 4));
    for (int64_t n = 0; n < N; ++n) std::memcpy(y.data + n * C, w.data + ids[n] * C * 4, static_cast<size_t>(C) * 4);
    return;
  }
  with_stored(kind, [&](auto stored) {
    using S = decltype(stored);
    const int64_t stride = row_bytes<S>(C);
    expect("w", w, volume(V, stride));
    for_rows(N, C, [&](int64_t n, int64_t end) {
      for (; n < end; ++n) widen_row<S>(w.data + ids[n] * stride, 0, C, y.data + n * C);
    });
  });
}
double embed_stored_cost(In<int32_t>, In<uint8_t>, Out<float>, int64_t, int64_t N, int64_t, int64_t C) {
  return static_cast<double>(N) * static_cast<double>(C);
}

constexpr oplus_op list[] = {op<linear_stored, linear_stored_cost>("linearStored"),
                             op<embed_stored, embed_stored_cost>("embedStored")};

}  // namespace

extern constinit const Ops linear_stored_ops(list);

}  // namespace oplus::OPLUS_TARGET
