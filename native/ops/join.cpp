// a ⊕ b for whole states, on the CPU: how streams that were read apart become one (algorithms A.1).
#include "core/op.h"
#include "core/simd.h"
#include "scan.h"

namespace oplus::OPLUS_TARGET {

void join_states(In<float> m1, In<float> u1, In<float> w1, In<float> m2, In<float> u2, In<float> w2, Out<float> m, Out<float> u,
                 Out<float> w, int64_t n, int64_t D) {
  if (n < 0 || D < 0)
    fail(OPLUS_BAD_SHAPE, "sizes %lld and %lld, expected none below 0", static_cast<long long>(n), static_cast<long long>(D));
  expect("m1", m1, n), expect("u1", u1, n), expect("w1", w1, volume(n, D)), expect("m2", m2, n), expect("u2", u2, n),
      expect("w2", w2, volume(n, D));
  expect("m", m, n), expect("u", u, n), expect("w", w, volume(n, D));
  for (int64_t h = 0; h < n; ++h) {
    const Prefix a{m1[h], u1[h]}, b{m2[h], u2[h]};
    const Join j = join(a.m, b.m);
    const Prefix both = join(a, b);
    for (int64_t d = h * D; d < (h + 1) * D; ++d) w[d] = j.left * w1[d] + j.right * w2[d];
    m[h] = both.m;
    u[h] = both.u;
  }
}

static constexpr oplus_op list[] = {op<join_states>("join")};
extern constinit const Ops join_ops;
constinit const Ops join_ops(list);

}  // namespace oplus::OPLUS_TARGET
