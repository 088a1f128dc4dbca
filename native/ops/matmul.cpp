// Matrix products on the CPU: y = x · wᵀ + b, and the general product that gradients need. The product itself is in
// matmul_product.h, so that other operations can use it.
#include "matmul_product.h"

namespace oplus::OPLUS_TARGET {
namespace {

void linear(In<float> x, In<float> w, MaybeIn<float> b, Out<float> y, int64_t N, int64_t C, int64_t F) {
  if (N < 0 || C < 0 || F < 0) fail(OPLUS_BAD_SHAPE, "a size is negative");
  expect("x", x, volume(N, C));
  expect("w", w, volume(F, C));
  expect("b", b, F);
  expect("y", y, volume(N, F));
  product({{x.data, C, true}, {w.data, C, true}, b.data, y.data, N, F, C});
}
double linear_cost(In<float>, In<float>, MaybeIn<float>, Out<float>, int64_t N, int64_t C, int64_t F) {
  return static_cast<double>(N) * static_cast<double>(C) * static_cast<double>(F);
}

void matmul(In<float> a, In<float> b, Out<float> y, int64_t M, int64_t N, int64_t K, bool transpose_a, bool transpose_b) {
  if (M < 0 || N < 0 || K < 0) fail(OPLUS_BAD_SHAPE, "a size is negative");
  expect("a", a, volume(M, K));
  expect("b", b, volume(K, N));
  expect("y", y, volume(M, N));
  product({{a.data, transpose_a ? M : K, !transpose_a}, {b.data, transpose_b ? K : N, transpose_b}, nullptr, y.data, M, N, K});
}
double matmul_cost(In<float>, In<float>, Out<float>, int64_t M, int64_t N, int64_t K, bool, bool) {
  return static_cast<double>(M) * static_cast<double>(N) * static_cast<double>(K);
}

constexpr oplus_op list[] = {op<linear, linear_cost>("linear"), op<matmul, matmul_cost>("matmul")};

}  // namespace

extern constinit const Ops matmul_ops(list);

}  // namespace oplus::OPLUS_TARGET
