// a ⊕ b for whole states, on the GPU: how streams that were read apart become one (algorithms A.1).
//
// Grid (n), block of one warp: the lanes of a warp share one head's (m, u) and take its columns in turn. Every array is read
// once and written once; a head's old m and u are read by all lanes before lane 0 overwrites them.
#include "cuda/sizes.h"
#include "scan.h"

namespace oplus::OPLUS_TARGET {
namespace {

__global__ void __launch_bounds__(32) join_kernel(const float* m1, const float* u1, const float* w1, const float* m2,
                                                  const float* u2, const float* w2, float* m, float* u, float* w, int64_t D) {
  const int64_t h = blockIdx.x;
  const Prefix a{m1[h], u1[h]}, b{m2[h], u2[h]};
  const Join j = join(a.m, b.m);
  const Prefix both = join(a, b);
  for (int64_t d = h * D + threadIdx.x; d < (h + 1) * D; d += 32) w[d] = j.left * w1[d] + j.right * w2[d];
  __syncwarp();
  if (threadIdx.x == 0) m[h] = both.m, u[h] = both.u;
}

void join_states(Stream stream, In<float> m1, In<float> u1, In<float> w1, In<float> m2, In<float> u2, In<float> w2, Out<float> m,
                 Out<float> u, Out<float> w, int64_t n, int64_t D) {
  const int64_t size = volume(n, D);
  expect("m1", m1, n), expect("u1", u1, n), expect("w1", w1, size), expect("m2", m2, n), expect("u2", u2, n),
      expect("w2", w2, size);
  expect("m", m, n), expect("u", u, n), expect("w", w, size);
  gpu::launch(join_kernel, blocks(n), 32, stream, m1.data, u1.data, w1.data, m2.data, u2.data, w2.data, m.data, u.data, w.data,
              D);
}

constexpr oplus_op list[] = {op<join_states>("join")};

}  // namespace

extern constinit const Ops join_ops(list);

}  // namespace oplus::OPLUS_TARGET
