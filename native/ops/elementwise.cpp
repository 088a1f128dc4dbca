// Element by element: fill, add, mul, scale, accumulate; sums over a dimension; blocks copied between layouts.
// All are bound by memory: one pass, each array touched once, in pieces that threads share.
#include "core/op.h"
#include "core/partition.h"
#include "core/simd.h"

namespace oplus::OPLUS_TARGET {
namespace {

// y[i] = f(a[i], b[i]) for i < n; y may be a or b, because every step reads before it writes the same place.
template <typename F>
OPLUS_INLINE void map(const float* a, const float* b, float* y, int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    const Vec y0 = f(load(a + i), load(b + i)), y1 = f(load(a + i + kLanes), load(b + i + kLanes));
    const Vec y2 = f(load(a + i + 2 * kLanes), load(b + i + 2 * kLanes)),
              y3 = f(load(a + i + 3 * kLanes), load(b + i + 3 * kLanes));
    store(y + i, y0), store(y + i + kLanes, y1);
    store(y + i + 2 * kLanes, y2), store(y + i + 3 * kLanes, y3);
  }
  for (; i < n; i += kLanes) {
    const int64_t part = at_most(kLanes, n - i);
    store_part(y + i, f(load_part(a + i, part), load_part(b + i, part)), part);
  }
}

// y[r, i] = f(a[r, i], b[i])
template <typename F>
OPLUS_INLINE void map_rows(const In<float>& a, const In<float>& b, const Out<float>& y, int64_t rows, int64_t n, F&& f) {
  const int64_t size = volume(rows, n);
  expect("a", a, size);
  expect("b", b, rows ? n : 0);
  expect("y", y, size);
  if (size == 0) return;
  if (rows <= 8) {  // few rows: divide each
    for (int64_t r = 0; r < rows; ++r)
      for_pieces(n, [&](int64_t i, int64_t end) { map(a.data + r * n + i, b.data + i, y.data + r * n + i, end - i, f); });
    return;
  }
  for_rows(rows, n, [&](int64_t r, int64_t end) {
    for (; r < end; ++r) map(a.data + r * n, b.data, y.data + r * n, n, f);
  });
}

void fill(Out<float> x, float value, int64_t n) {
  expect("x", x, volume(n));
  for_pieces(n, [&](int64_t i, int64_t end) {
    for (; i < end; ++i) x[i] = value;
  });
}

void add(In<float> a, In<float> b, Out<float> y, int64_t rows, int64_t n) {
  map_rows(a, b, y, rows, n, [](auto p, auto q) { return p + q; });
}

void mul(In<float> a, In<float> b, Out<float> y, int64_t rows, int64_t n) {
  map_rows(a, b, y, rows, n, [](auto p, auto q) { return p * q; });
}

void scale(In<float> x, Out<float> y, float factor, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("y", y, n);
  for_pieces(n, [&](int64_t i, int64_t end) {
    map(x.data + i, x.data + i, y.data + i, end - i, [&](auto p, auto) { return p * factor; });
  });
}

void accumulate(In<float> x, InOut<float> y, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("y", y, n);
  for_pieces(
      n, [&](int64_t i, int64_t end) { map(x.data + i, y.data + i, y.data + i, end - i, [](auto p, auto q) { return p + q; }); });
}

float sum_of(const float* x, int64_t n) {
  Vec s0{}, s1{}, s2{}, s3{};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    s0 += load(x + i), s1 += load(x + i + kLanes);
    s2 += load(x + i + 2 * kLanes), s3 += load(x + i + 3 * kLanes);
  }
  for (; i + kLanes <= n; i += kLanes) s0 += load(x + i);
  if (i < n) s1 += load_part(x + i, n - i);
  return sum((s0 + s1) + (s2 + s3));
}

// y[i] = Σ_k x[k, i], k < n, columns [i, end) of rows `inner` long.
void add_columns(const float* x, float* y, int64_t n, int64_t inner, int64_t i, int64_t end) {
  for (; i + 4 * kLanes <= end; i += 4 * kLanes) {
    Vec s0{}, s1{}, s2{}, s3{};
    for (int64_t k = 0; k < n; ++k) {
      const float* at = x + k * inner + i;
      s0 += load(at), s1 += load(at + kLanes), s2 += load(at + 2 * kLanes), s3 += load(at + 3 * kLanes);
    }
    store(y + i, s0), store(y + i + kLanes, s1), store(y + i + 2 * kLanes, s2), store(y + i + 3 * kLanes, s3);
  }
  for (; i < end; i += kLanes) {
    const int64_t part = at_most(kLanes, end - i);
    Vec s{};
    for (int64_t k = 0; k < n; ++k) s += load_some(x + k * inner + i, part);
    store_part(y + i, s, part);
  }
}

// Rows are added in blocks of kBlock, then the blocks' sums: the error grows with n / kBlock + kBlock, and both steps run in
// parallel in an order that the sizes alone decide.
void sum_over(In<float> x, Out<float> y, int64_t outer, int64_t n, int64_t inner) {
  constexpr int64_t kBlock = 256;
  expect("x", x, volume(outer, n, inner));
  expect("y", y, volume(outer, inner));
  if (volume(outer, inner) == 0) return;
  if (inner == 1) {
    if (n > kPiece) {
      for (int64_t o = 0; o < outer; ++o)
        y[o] = static_cast<float>(sum_pieces(n, [&](int64_t i, int64_t end) { return sum_of(x.data + o * n + i, end - i); }));
      return;
    }
    return for_rows(outer, n, [&](int64_t o, int64_t end) {
      for (; o < end; ++o) y[o] = sum_of(x.data + o * n, n);
    });
  }
  const int64_t blocks = divide_up(n, kBlock);
  if (blocks <= 1) {
    return for_rows(outer, n * inner, [&](int64_t o, int64_t end) {
      for (; o < end; ++o) add_columns(x.data + o * n * inner, y.data + o * inner, n, inner, 0, inner);
    });
  }
  Scratch partial(volume(outer, blocks, inner));
  for_rows(outer * blocks, kBlock * inner, [&](int64_t i, int64_t end) {
    for (; i < end; ++i) {
      const int64_t o = i / blocks, first = i % blocks * kBlock;
      add_columns(x.data + (o * n + first) * inner, partial.data() + i * inner, at_most(kBlock, n - first), inner, 0, inner);
    }
  });
  for (int64_t o = 0; o < outer; ++o)
    for_rows(divide_up(inner, 64), blocks * 64, [&](int64_t i, int64_t end) {
      add_columns(partial.data() + o * blocks * inner, y.data + o * inner, blocks, inner, i * 64, at_most(inner, end * 64));
    });
}

// Copies this large would only push everything else out of the caches, and reading each line of y before it is overwritten
// would move half as much again: stores go past the caches. x and y are different memory.
constexpr int64_t kBeyondCaches = 8 << 20;  // elements

void copy_past_caches(const float* from, float* to, int64_t n) {
  const int64_t head = at_most(n, -(reinterpret_cast<intptr_t>(to) / 4) & (kLanes - 1));  // up to the first whole vector of y
  std::memcpy(to, from, sizeof(float) * head);
  int64_t i = head;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    const Vec v0 = load(from + i), v1 = load(from + i + kLanes), v2 = load(from + i + 2 * kLanes),
              v3 = load(from + i + 3 * kLanes);
    stream(to + i, v0), stream(to + i + kLanes, v1);
    stream(to + i + 2 * kLanes, v2), stream(to + i + 3 * kLanes, v3);
  }
  stream_fence();
  std::memcpy(to + i, from + i, sizeof(float) * (n - i));
}

void copy_block(In<float> x, InOut<float> y, int64_t outer, int64_t width, int64_t x_stride, int64_t x_offset, int64_t y_stride,
                int64_t y_offset) {
  if (volume(outer, width) == 0) return;
  expect("x", x, volume(outer - 1, x_stride) + volume(x_offset) + width);
  expect("y", y, volume(outer - 1, y_stride) + volume(y_offset) + width);
  const float* from = x.data + x_offset;
  float* to = y.data + y_offset;
  if (width >= kBeyondCaches && x.data != y.data) {
    for (int64_t o = 0; o < outer; ++o)
      for_pieces(width,
                 [&](int64_t i, int64_t end) { copy_past_caches(from + o * x_stride + i, to + o * y_stride + i, end - i); });
    return;
  }
  if (outer <= 8) {
    for (int64_t o = 0; o < outer; ++o)
      for_pieces(width, [&](int64_t i, int64_t end) {
        std::memmove(to + o * y_stride + i, from + o * x_stride + i, sizeof(float) * (end - i));
      });
    return;
  }
  for_rows(outer, width, [&](int64_t o, int64_t end) {
    for (; o < end; ++o) std::memmove(to + o * y_stride, from + o * x_stride, sizeof(float) * width);
  });
}

double block_cost(In<float>, InOut<float>, int64_t outer, int64_t width, int64_t, int64_t, int64_t, int64_t) {
  return static_cast<double>(outer) * static_cast<double>(width);
}

}  // namespace

static constexpr oplus_op list[] = {
    op<fill>("fill"),
    op<add>("add"),
    op<mul>("mul"),
    op<scale>("scale"),
    op<accumulate>("accumulate"),
    op<sum_over>("sum"),
    op<copy_block, block_cost>("copyBlock"),
};
extern constinit const Ops elementwise_ops(list);

}  // namespace oplus::OPLUS_TARGET
