// C = op(A) · op(B) + bias: which of the three loops of matmul_kernel.h runs, in which pieces, on how many threads.
#pragma once
#include "../core/pool.h"
#include "matmul_kernel.h"

namespace oplus::OPLUS_TARGET {

// ---- constants, with their reasons ----------------------------------------------------------

// A panel of B (kDepth × kTileColumns) stays in the nearest cache while panels of A pass by; a block of A (kBlockRows ×
// kDepth) stays in the second cache while panels of B pass by.
constexpr int64_t kDepth = 512;
constexpr int64_t kBlockPanels = 192 / kTileRows;
// Columns of B packed at a time: 8 MB of panels at most.
constexpr int64_t kSpan = 4096;
// A task of the pool is worth waking a thread for from about 20 µs of work on: so many multiply-adds where the operands
// are used again and again, so many floats where each is read once.
constexpr int64_t kTaskWork = 1 << 20, kTaskFloats = 1 << 17;
// An operand of so many floats lies past the second cache: its next rows are asked for while the present ones are used.
constexpr int64_t kFarFloats = 1 << 19;
// Packing pays from so many rows on.
constexpr int64_t kDotRows = 16, kStreamRows = 8;

static constinit thread_local PanelRoom panels_a, panels_b, panels_shared, rows_a;

OPLUS_INLINE int64_t pieces(int64_t whole, int64_t piece) { return (whole + piece - 1) / piece; }
OPLUS_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
OPLUS_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// f(first, end) over [0, n) cut at multiples of `grain` into as many parts as the work deserves
template <typename F>
static inline void split(int64_t n, int64_t grain, int64_t deserved, F&& f) {
  const int64_t all = pieces(n, grain);
  // As many for each thread: three equal parts take two threads as long as four.
  int64_t parts = deserved < 2 ? 1 : least(all, pieces(least(deserved, 4 * threads()), threads()) * threads());
  if (parts <= 1) {
    f(int64_t{0}, n);
    return;
  }
  const int64_t each = pieces(all, parts) * grain;
  parts = pieces(n, each);
  parallel_for(static_cast<int>(parts), [&](int t) { f(t * each, least((t + 1) * each, n)); });
}

// ---- packed --------------------------------------------------------------------------------

// The second operand may lie in memory in another way than Lines (stored_product.h): pack<kWidth>(b, …) makes panels of it, and
// blocks of K are cut at multiples of B::kGrain.
template <typename B>
struct ProductOf {
  Lines a;  // rows of op(A)
  B b;      // columns of op(B)
  const float* bias;
  float* y;
  int64_t M, N, K;
};
using Product = ProductOf<Lines>;

// Depth of the blocks that K is cut into: equal, a multiple of the grain, at most kDepth.
static inline int64_t block_depth(int64_t K, int64_t grain) {
  return least(K, pieces(pieces(K, pieces(K, kDepth)), grain) * grain);
}

// One panel of B against packed row panels [i0, i1) of A. `ahead`: the first column of another panel of B, not packed yet, to be
// asked for meanwhile, or −1.
template <typename B>
static inline void tiles(const ProductOf<B>& p, const float* a, const float* b, int64_t i0, int64_t i1, int64_t column, int64_t k,
                         int64_t depth, int64_t ahead = -1) {
  const float* bias = p.bias ? p.bias + column : nullptr;
  for (int64_t i = i0; i < i1; ++i, a += kTileRows * depth) {
    if (ahead >= 0) {
      const int64_t k0 = depth * (i - i0) / (i1 - i0) / 16 * 16, k1 = depth * (i - i0 + 1) / (i1 - i0) / 16 * 16;
      for (int64_t line = 0; line < kTileColumns; ++line) p.b.ask(ahead + line, k + k0, k + k1);
    }
    float* y = p.y + i * kTileRows * p.N + column;
    const int64_t rows = p.M - i * kTileRows, columns = p.N - column;
    if (rows > kFewRows) tile<kTileRows>(depth, a, b, bias, k > 0, y, p.N, rows, columns);
    else tile<kFewRows>(depth, a, b, bias, k > 0, y, p.N, rows, columns);
  }
}

// Few enough rows for one block: each task takes columns, and packs a panel of B just before it uses it.
template <typename B>
static inline void product_block(const ProductOf<B>& p) {
  const int64_t row_panels = pieces(p.M, kTileRows), depth_most = block_depth(p.K, B::kGrain);
  const bool far = p.b.along && p.N * p.K >= kFarFloats;
  split(p.N, 4 * kTileColumns, p.M * p.N * p.K / kTaskWork, [&](int64_t j0, int64_t j1) {
    float* a = reserve(panels_a, row_panels * kTileRows * depth_most);
    float* b = reserve(panels_b, kTileColumns * depth_most);
    for (int64_t k = 0; k < p.K; k += depth_most) {
      const int64_t depth = least(depth_most, p.K - k);
      pack<kTileRows>(p.a, p.M, 0, row_panels, k, depth, a);
      for (int64_t j = j0; j < j1; j += kTileColumns) {
        const int64_t panel = j / kTileColumns, next = j + kTileColumns;
        pack<kTileColumns>(p.b, p.N, panel, panel + 1, k, depth, b);
        tiles(p, a, b, 0, row_panels, j, k, depth, far && next + kTileColumns <= j1 ? next : -1);
      }
    }
  });
}

// Rows of A in blocks × panels of B in runs; each task packs its block of A into a buffer of the thread it runs on.
template <typename B>
static inline void product_tasks(const ProductOf<B>& p, const float* b, int64_t first, int64_t columns, int64_t k, int64_t depth,
                                 bool parallel) {
  const int64_t row_panels = pieces(p.M, kTileRows), column_panels = pieces(columns, kTileColumns);
  const int64_t want = parallel ? 4 * threads() : 1;
  const int64_t block = least(kBlockPanels, most(8, pieces(row_panels, want))), blocks = pieces(row_panels, block);
  const int64_t run = blocks >= want ? column_panels : most(8, pieces(column_panels, pieces(want, blocks))),
                runs = pieces(column_panels, run);
  const auto task = [&](int t) {
    const int64_t i0 = t / runs * block, i1 = least(i0 + block, row_panels);
    const int64_t j0 = t % runs * run, j1 = least(j0 + run, column_panels);
    float* a = reserve(panels_a, kBlockPanels * kTileRows * depth);
    pack<kTileRows>(p.a, p.M, i0, i1, k, depth, a);
    for (int64_t j = j0; j < j1; ++j) tiles(p, a, b + j * kTileColumns * depth, i0, i1, first + j * kTileColumns, k, depth);
  };
  if (parallel) parallel_for(static_cast<int>(blocks * runs), task);
  else
    for (int t = 0; t < blocks * runs; ++t) task(t);
}

// Many rows: panels of B are packed first, for all tasks.
template <typename B>
static inline void product_packed(const ProductOf<B>& p) {
  const int64_t deserved = p.M * p.N * p.K / kTaskWork, depth_most = block_depth(p.K, B::kGrain);
  float* b = reserve(panels_shared, pieces(least(p.N, kSpan), kTileColumns) * kTileColumns * depth_most);
  for (int64_t first = 0; first < p.N; first += kSpan) {
    const int64_t columns = least(kSpan, p.N - first);
    for (int64_t k = 0; k < p.K; k += depth_most) {
      const int64_t depth = least(depth_most, p.K - k);
      split(columns, 4 * kTileColumns, deserved, [&](int64_t j0, int64_t j1) {
        pack<kTileColumns>(p.b, p.N, (first + j0) / kTileColumns, pieces(first + j1, kTileColumns), k, depth, b + j0 * depth);
      });
      product_tasks(p, b, first, columns, k, depth, deserved > 1);
    }
  }
}

// ---- few rows ------------------------------------------------------------------------------

struct Rows {
  const float* data;
  int64_t stride;
};

// The first `count` lines, each along k: as they are, or copied. Copies lie an odd multiple of kDotDepth apart, so that
// no more of them share a set of the nearest cache than must.
static inline Rows lines_along(const Lines& lines, int64_t count, int64_t K) {
  if (lines.along && (K <= kDotDepth || count == 1)) return {lines.data, lines.stride};
  const int64_t stride = (pieces(K, kDotDepth) | 1) * kDotDepth;
  float* rows = reserve(rows_a, count * stride);
  for (int64_t k = 0; k < K; k += kDotDepth)
    for (int64_t r = 0; r < count; ++r)
      for (int64_t i = k; i < least(K, k + kDotDepth); ++i) rows[r * stride + i] = *lines.at(r, i);
  return {rows, stride};
}

// Few rows `a` by lines `b`, both along k
static inline void product_dots(const Lines& a, int64_t M, const Lines& b, int64_t N, int64_t K, const float* bias_a,
                                const float* bias_b, float* y, int64_t y_row, int64_t y_column) {
  const Rows rows = lines_along(a, M, K);
  const Dots d{rows.data, b.data, bias_a, bias_b, y, M, K, rows.stride, b.stride, y_row, y_column};
  split(N, 24, most(N * K / kTaskFloats, M * N * K / kTaskWork), [&](int64_t j0, int64_t j1) { dots(d, j0, j1); });
}

static inline void product_stream(const Product& p) {
  const Rows a = lines_along(p.a, p.M, p.K);
  const int64_t deserved = most(p.N * p.K / kTaskFloats, p.M * p.N * p.K / kTaskWork);
  split(p.N, (p.M == 1 ? 8 : 12) * kLanes, deserved, [&](int64_t j0, int64_t j1) {
    stream_product(a.data, a.stride, p.b.data + j0, p.b.stride, p.y + j0, p.N, p.M, p.K, j1 - j0);
  });
}

// y[M, N] = op(A) · op(B) + bias[N]
static inline void product(const Product& p) {
  if (p.M <= 0 || p.N <= 0) return;
  if (p.K <= 0) {
    for (int64_t i = 0; i < p.M; ++i)
      for (int64_t j = 0; j < p.N; ++j) p.y[i * p.N + j] = p.bias ? p.bias[j] : 0.0f;
  } else if (p.b.along && p.M <= kDotRows && p.M <= p.N) {
    product_dots(p.a, p.M, p.b, p.N, p.K, nullptr, p.bias, p.y, p.N, 1);
  } else if (p.a.along && p.N <= kDotRows) {
    product_dots(p.b, p.N, p.a, p.M, p.K, p.bias, nullptr, p.y, 1, p.N);
  } else if (!p.b.along && p.M <= kStreamRows && !p.bias) {
    product_stream(p);
  } else if (p.M <= kBlockPanels * kTileRows) {
    product_block(p);
  } else {
    product_packed(p);
  }
}

}  // namespace oplus::OPLUS_TARGET
