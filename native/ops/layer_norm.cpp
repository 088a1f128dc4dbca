// Layer normalisation (Ba, Kiros & Hinton 2016) over the last dimension, and its gradient.
//
// Forward: a row is read for its mean, again (from the cache) for its variance about that mean, and a third time for the
// result: E[x²] − mean² would lose every digit where the mean is large.
// Backward, with x̂ = (x − mean) · rstd and a = g · gamma: dx = rstd · (a − mean(a) − x̂ · mean(a · x̂)), dgamma = Σ g · x̂,
// dbeta = Σ g. The two sums over rows are made chunk by chunk; the chunks depend on N alone and are added in order.
#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"

namespace oplus::OPLUS_TARGET {
namespace {

// f(i, lanes, load function) over a row: whole vectors, then the rest with zeros beyond it.
template <typename F>
OPLUS_INLINE void for_vectors(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, int64_t{kLanes}, [&](const float* p) { return load(p + i); });
  if (i < n) f(i, n - i, [&](const float* p) { return load_part(p + i, n - i); });
}

float mean_of(const float* x, int64_t n) {
  Vec s0{}, s1{};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) s0 += load(x + i), s1 += load(x + i + kLanes);
  for (; i < n; i += kLanes) s0 += load_some(x + i, n - i);
  return sum(s0 + s1) / static_cast<float>(n);
}

float variance_of(const float* x, float mean, int64_t n) {
  Vec s0{}, s1{};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const Vec a = load(x + i) - mean, b = load(x + i + kLanes) - mean;
    s0 += a * a, s1 += b * b;
  }
  for (; i < n; i += kLanes) {
    const Vec a = load_some(x + i, n - i, mean) - mean;
    s0 += a * a;
  }
  return sum(s0 + s1) / static_cast<float>(n);
}

void layer_norm(In<float> x, In<float> gamma, In<float> beta, Out<float> y, MaybeOut<float> mean, MaybeOut<float> rstd, int64_t N,
                int64_t C, float epsilon) {
  const int64_t size = volume(N, C);
  expect("x", x, size);
  expect("gamma", gamma, C);
  expect("beta", beta, C);
  expect("y", y, size);
  expect("mean", mean, N);
  expect("rstd", rstd, N);
  if (C == 0 && !mean && !rstd) return;
  for_rows(N, C, [&](int64_t row, int64_t end) {
    for (; row < end; ++row) {
      const float* from = x.data + row * C;
      float* to = y.data + row * C;
      const float m = C ? mean_of(from, C) : 0;
      const float r = 1.0f / __builtin_sqrtf((C ? variance_of(from, m, C) : 0) + epsilon);
      if (mean) mean[row] = m;
      if (rstd) rstd[row] = r;
      for_vectors(C, [&](int64_t i, int64_t lanes, auto get) {
        store_some(to + i, (get(from) - m) * r * get(gamma.data) + get(beta.data), lanes);
      });
    }
  });
}

double norm_cost(In<float>, In<float>, In<float>, Out<float>, MaybeOut<float>, MaybeOut<float>, int64_t N, int64_t C, float) {
  return 8.0 * static_cast<double>(N) * static_cast<double>(C);
}

// One row: dx, and its part of dgamma and dbeta. a waits in dx: made again beside the subtraction, the two would be one fused
// multiply-subtract, and a − mean(a), which is 0 in a row of one number, would be the rounding of a.
OPLUS_INLINE void backward_row(const float* g, const float* x, const float* gamma, float mean, float rstd, float* dx,
                               float* dgamma, float* dbeta, int64_t C) {
  Vec sum_a{}, sum_ax{};
  for_vectors(C, [&](int64_t i, int64_t lanes, auto get) {
    const Vec up = get(g), hat = (get(x) - mean) * rstd, a = up * get(gamma);
    sum_a += a;
    sum_ax += a * hat;  // beyond the row, a is 0
    store_some(dx + i, a, lanes);
    store_some(dgamma + i, get(dgamma) + up * hat, lanes);
    store_some(dbeta + i, get(dbeta) + up, lanes);
  });
  const float width = static_cast<float>(C), mean_a = sum(sum_a) / width, mean_ax = sum(sum_ax) / width;
  for_vectors(C, [&](int64_t i, int64_t lanes, auto get) {
    const Vec hat = (get(x) - mean) * rstd;
    store_some(dx + i, (get(dx) - mean_a - hat * mean_ax) * rstd, lanes);
  });
}

void layer_norm_backward(In<float> g, In<float> x, In<float> gamma, In<float> mean, In<float> rstd, Out<float> dx,
                         Out<float> dgamma, Out<float> dbeta, int64_t N, int64_t C) {
  const int64_t size = volume(N, C);
  expect("g", g, size);
  expect("x", x, size);
  expect("gamma", gamma, C);
  expect("mean", mean, N);
  expect("rstd", rstd, N);
  expect("dx", dx, size);
  expect("dgamma", dgamma, C);
  expect("dbeta", dbeta, C);
  if (C == 0) return;
  constexpr int64_t kMost = 128;  // chunks: enough for any CPU to share, few enough to add up quickly
  const int64_t rows = at_least(32, divide_up(N, kMost)), chunks = at_least(1, divide_up(N, rows));
  Scratch sums(volume(chunks, 2, C));
  auto chunk = [&](int i) {
    float* dgamma_part = sums.data() + i * 2 * C;
    float* dbeta_part = dgamma_part + C;
    for (int64_t c = 0; c < 2 * C; ++c) dgamma_part[c] = 0;
    for (int64_t row = i * rows; row < at_most(N, (i + 1) * rows); ++row)
      backward_row(g.data + row * C, x.data + row * C, gamma.data, mean[row], rstd[row], dx.data + row * C, dgamma_part,
                   dbeta_part, C);
  };
  if (size < kPiece)
    for (int i = 0; i < chunks; ++i) chunk(i);
  else parallel_for(static_cast<int>(chunks), chunk);
  for_rows(divide_up(C, 64), 64 * 2 * chunks, [&](int64_t block, int64_t end) {
    const int64_t first = block * 64, last = at_most(C, end * 64);
    for (int64_t c = first; c < last; ++c) dgamma[c] = 0, dbeta[c] = 0;
    for (int64_t i = 0; i < chunks; ++i)
      for (int64_t c = first; c < last; ++c) {
        dgamma[c] += sums.data()[i * 2 * C + c];
        dbeta[c] += sums.data()[i * 2 * C + C + c];
      }
  });
}

double norm_backward_cost(In<float>, In<float>, In<float>, In<float>, In<float>, Out<float>, Out<float>, Out<float>, int64_t N,
                          int64_t C) {
  return 16.0 * static_cast<double>(N) * static_cast<double>(C);
}

}  // namespace

static constexpr oplus_op list[] = {
    op<layer_norm, norm_cost>("layerNorm"),
    op<layer_norm_backward, norm_backward_cost>("layerNormBackward"),
};
extern constinit const Ops layer_norm_ops(list);

}  // namespace oplus::OPLUS_TARGET
