// Matrix products in f32: y = x · wᵀ + b, and the general product that gradients need. Few rows or columns: cuda/narrow.h;
// many: cuda/tiles.h.
#include "cuda/narrow.h"
#include "cuda/tiles.h"

namespace oplus::OPLUS_TARGET {
namespace {

// y[M, N] = op(a) · op(b) + bias
struct Product {
  const float *a, *b, *bias;
  float* y;
  int64_t M, N, K;
  bool transpose_a, transpose_b;
};

template <int kTile, bool kAlongA, bool kAlongB>
void run_lines(Stream stream, const Product& p) {
  const int64_t stride_a = kAlongA ? p.K : p.M, stride_b = kAlongB ? p.K : p.N;
  const auto run = [&](auto four) {
    const Lines<kAlongA, four> a{p.a, stride_a, p.M, p.K};
    const Lines<kAlongB, four> b{p.b, stride_b, p.N, p.K};
    run_tiles<kTile>(stream, a, b, p.bias, p.y, p.M, p.N);
  };
  if (stride_a % 4 == 0 && stride_b % 4 == 0 && aligned(p.a, p.b)) run(std::true_type{});
  else run(std::false_type{});
}

template <int kTile>
void run_product(Stream stream, const Product& p) {
  if (p.transpose_a) p.transpose_b ? run_lines<kTile, false, true>(stream, p) : run_lines<kTile, false, false>(stream, p);
  else p.transpose_b ? run_lines<kTile, true, true>(stream, p) : run_lines<kTile, true, false>(stream, p);
}

void product(Stream stream, const Product& p) {
  if (p.M == 0 || p.N == 0) return;
  // The wide operand of a narrow product, and the few lines that meet it.
  const bool few_rows = p.M <= kFewLines, few_columns = !few_rows && p.N <= kFewLines;
  if (few_rows || few_columns) {
    const Few few = few_rows ? Few{p.a, p.transpose_a ? 1 : p.K, p.transpose_a ? p.M : 1, p.M}
                             : Few{p.b, p.transpose_b ? p.K : 1, p.transpose_b ? 1 : p.N, p.N};
    const float* wide = few_rows ? p.b : p.a;
    const int64_t lines = few_rows ? p.N : p.M;
    const Narrow out{p.y,      few_rows ? p.N : 1, few_rows ? 1 : p.N, few_rows ? p.bias : nullptr, few_rows ? nullptr : p.bias,
                     p.M * p.N};
    if (few_rows ? p.transpose_b : !p.transpose_a) return along_lines(stream, few, wide, lines, p.K, out);
    return across_lines(stream, few, wide, lines, p.K, out);
  }
  if (large_tiles(stream, p.M, p.N)) run_product<128>(stream, p);
  else run_product<64>(stream, p);
}

void linear(Stream stream, In<float> x, In<float> w, MaybeIn<float> b, Out<float> y, int64_t N, int64_t C, int64_t F) {
  expect("x", x, volume(N, C)), expect("w", w, volume(F, C)), expect("b", b, F), expect("y", y, volume(N, F));
  product(stream, {x.data, w.data, b.data, y.data, N, F, C, false, true});
}
double linear_cost(In<float>, In<float>, MaybeIn<float>, Out<float>, int64_t N, int64_t C, int64_t F) {
  return static_cast<double>(N) * static_cast<double>(C) * static_cast<double>(F);
}

void matmul(Stream stream, In<float> a, In<float> b, Out<float> y, int64_t M, int64_t N, int64_t K, bool transpose_a,
            bool transpose_b) {
  expect("a", a, volume(M, K)), expect("b", b, volume(K, N)), expect("y", y, volume(M, N));
  product(stream, {a.data, b.data, nullptr, y.data, M, N, K, transpose_a, transpose_b});
}
double matmul_cost(In<float>, In<float>, Out<float>, int64_t M, int64_t N, int64_t K, bool, bool) {
  return static_cast<double>(M) * static_cast<double>(N) * static_cast<double>(K);
}

constexpr oplus_op list[] = {op<linear, linear_cost>("linear"), op<matmul, matmul_cost>("matmul")};

}  // namespace

extern constinit const Ops matmul_ops(list);

}  // namespace oplus::OPLUS_TARGET
