// The key projection of a fixed query folded into one vector a head, and its gradient. Both read or write each weight
// once, so they run at the speed of memory: a head is a task.
#include "matmul_product.h"

namespace oplus::OPLUS_TARGET {
namespace {

void check(int64_t H, int64_t D, int64_t C) {
  if (H < 0 || D < 0 || C < 0) fail(OPLUS_BAD_SHAPE, "a size is negative");
}

void multiply(float* x, float factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

void fold_query(In<float> q, In<float> w, Out<float> a, int64_t H, int64_t D, int64_t C, float factor) {
  check(H, D, C);
  expect("q", q, volume(H, D));
  expect("w", w, volume(H, D, C));
  expect("a", a, volume(H, C));
  if (H == 0 || C == 0) return;
  split(H, 1, H * D * C / kTaskFloats, [&](int64_t first, int64_t end) {
    for (int64_t h = first; h < end; ++h) {
      stream_product(q.data + h * D, D, w.data + h * D * C, C, a.data + h * C, C, 1, D, C);
      multiply(a.data + h * C, factor, C);
    }
  });
}

void fold_query_backward(In<float> q, In<float> w, In<float> da, Out<float> dq, Out<float> dw, int64_t H, int64_t D, int64_t C,
                         float factor) {
  check(H, D, C);
  expect("q", q, volume(H, D));
  expect("w", w, volume(H, D, C));
  expect("da", da, volume(H, C));
  expect("dq", dq, volume(H, D));
  expect("dw", dw, volume(H, D, C));
  if (H == 0 || D == 0) return;
  split(H, 1, 2 * H * D * C / kTaskFloats, [&](int64_t first, int64_t end) {
    for (int64_t h = first; h < end; ++h) {
      const float* g = da.data + h * C;
      dots({g, w.data + h * D * C, nullptr, nullptr, dq.data + h * D, 1, C, C, C, D, 1}, 0, D);
      multiply(dq.data + h * D, factor, D);
      for (int64_t r = h * D; r < (h + 1) * D; ++r) {
        const float each = factor * q[r];
        for (int64_t c = 0; c < C; ++c) dw[r * C + c] = each * g[c];
      }
    }
  });
}

double fold_query_cost(In<float>, In<float>, Out<float>, int64_t H, int64_t D, int64_t C, float) {
  return static_cast<double>(H) * static_cast<double>(D) * static_cast<double>(C);
}
double fold_query_backward_cost(In<float>, In<float>, In<float>, Out<float>, Out<float>, int64_t H, int64_t D, int64_t C, float) {
  return 2 * static_cast<double>(H) * static_cast<double>(D) * static_cast<double>(C);
}

constexpr oplus_op list[] = {op<fold_query, fold_query_cost>("foldQuery"),
                             op<fold_query_backward, fold_query_backward_cost>("foldQueryBackward")};

}  // namespace

extern constinit const Ops fold_query_ops(list);

}  // namespace oplus::OPLUS_TARGET
