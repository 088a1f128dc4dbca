// The gradient of an embedding: dw[v] = Σ g[n] over the tokens n whose id is v, 0 for a row that no token has.
//
// A task owns a few columns of the whole table and takes the tokens in their order: rows of one id are never added by two
// threads, and every sum has the same order however the columns are shared.
#include <cstring>

#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"

namespace oplus::OPLUS_TARGET {
namespace {

void embed_backward(In<int32_t> ids, In<float> g, Out<float> dw, int64_t N, int64_t V, int64_t C) {
  expect("ids", ids, N);
  expect("g", g, volume(N, C));
  expect("dw", dw, volume(V, C));
  for (int64_t n = 0; n < N; ++n)
    if (ids[n] < 0 || ids[n] >= V) fail(OPLUS_BAD_SHAPE, "token %d, expected one below %lld", ids[n], static_cast<long long>(V));
  for_pieces(V * C, [&](int64_t i, int64_t end) { std::memset(dw.data + i, 0, static_cast<size_t>(end - i) * 4); });
  constexpr int64_t kColumns = 32;  // two cache lines, so that few are shared by two threads
  for_rows(divide_up(C, kColumns), kColumns * N, [&](int64_t block, int64_t blocks) {
    const int64_t first = block * kColumns, last = at_most(C, blocks * kColumns);
    for (int64_t n = 0; n < N; ++n) {
      const float* from = g.data + n * C;
      float* to = dw.data + ids[n] * C;
      for (int64_t c = first; c < last; c += kLanes)
        store_some(to + c, load_some(to + c, last - c) + load_some(from + c, last - c), last - c);
    }
  });
}

}  // namespace

static constexpr oplus_op list[] = {op<embed_backward>("embedBackward")};
extern constinit const Ops embed_backward_ops(list);

}  // namespace oplus::OPLUS_TARGET
