// What the matrix products keep in memory while they run: packed panels, and the buffers of each thread that hold them.
//
// A panel is kWidth lines of op(A) or op(B) side by side: out[k · kWidth + r] = line r at k. Lines are rows of op(A) and
// columns of op(B), so both operands, transposed or not, are packed by one function in one of two ways: lines that lie
// along k in memory go through a transpose in registers, lines that lie across k are copied.
#pragma once
#include <stdlib.h>

#include "../core/op.h"
#include "../core/simd.h"

namespace oplus::OPLUS_TARGET {

// Kept for the thread's life: freeing after each call would cost an munmap and a TLB shootdown each time.
struct PanelRoom {
  float* data = nullptr;
  int64_t count = 0;
  ~PanelRoom() { free(data); }
};

static inline float* reserve(PanelRoom& room, int64_t count) {
  if (count <= room.count) return room.data;
  free(room.data);
  room.count = 0;
  const int64_t rounded = (count + 1023) / 1024 * 1024;
  room.data = static_cast<float*>(aligned_alloc(64, static_cast<size_t>(rounded) * sizeof(float)));
  if (!room.data) fail(OPLUS_OUT_OF_MEMORY, "out of memory for the panels of a matrix product");
  room.count = rounded;
  return room.data;
}

// ---- shuffles --------------------------------------------------------------------------------

// Blocks of kBlock lanes: [a's even blocks and b's even blocks, alternating], and the same of the odd blocks.
template <int kBlock, int... I>
OPLUS_INLINE Vec even_blocks(Vec a, Vec b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / kBlock % 2 ? kLanes + I - kBlock : I)...);
}
template <int kBlock, int... I>
OPLUS_INLINE Vec odd_blocks(Vec a, Vec b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / kBlock % 2 ? kLanes + I : I + kBlock)...);
}
using Lanes = std::make_integer_sequence<int, kLanes>;

// Within each quarter of four lanes: {a0 b0 a1 b1} and {a2 b2 a3 b3}, one instruction each.
template <int... I>
OPLUS_INLINE Vec zip_low(Vec a, Vec b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / 4 * 4 + I % 4 / 2 + I % 2 * kLanes)...);
}
template <int... I>
OPLUS_INLINE Vec zip_high(Vec a, Vec b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / 4 * 4 + I % 4 / 2 + 2 + I % 2 * kLanes)...);
}

template <int kBlock>
OPLUS_INLINE void swap_blocks(Vec* v) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i)
    if (i / kBlock % 2 == 0) {
      const Vec a = v[i], b = v[i + kBlock];
      v[i] = even_blocks<kBlock>(a, b, Lanes{});
      v[i + kBlock] = odd_blocks<kBlock>(a, b, Lanes{});
    }
}

// v[i][j] ↔ v[j][i]: 4 × 4 within quarters, then whole quarters.
OPLUS_INLINE void transpose(Vec* v) {
#pragma GCC unroll 4
  for (int i = 0; i < kLanes; i += 4) {
    const Vec a = zip_low(v[i], v[i + 2], Lanes{}), b = zip_high(v[i], v[i + 2], Lanes{});
    const Vec c = zip_low(v[i + 1], v[i + 3], Lanes{}), d = zip_high(v[i + 1], v[i + 3], Lanes{});
    v[i] = zip_low(a, c, Lanes{});
    v[i + 1] = zip_high(a, c, Lanes{});
    v[i + 2] = zip_low(b, d, Lanes{});
    v[i + 3] = zip_high(b, d, Lanes{});
  }
  if constexpr (kLanes >= 8) swap_blocks<4>(v);
  if constexpr (kLanes >= 16) swap_blocks<8>(v);
}

// ---- panels ----------------------------------------------------------------------------------

// A matrix as it lies in memory, seen as lines: element k of line r is data[r · stride + k] if `along`, else
// data[k · stride + r].
struct Lines {
  static constexpr int64_t kGrain = 8;
  const float* data;
  int64_t stride;
  bool along;
  const float* at(int64_t line, int64_t k) const { return along ? data + line * stride + k : data + k * stride + line; }
  // [k, end) of a line that lies along k, into the second cache
  void ask(int64_t line, int64_t k, int64_t end) const {
    for (; k < end; k += 16) __builtin_prefetch(at(line, k), 0, 2);
  }
};

// Up to kLanes lines (kRows of the panel's width, `rows` of them there) × depth.
template <int kWidth, int kRows>
OPLUS_INLINE void pack_along(const float* from, int64_t stride, int64_t rows, int64_t depth, float* out) {
  constexpr int kSpill = kRows < kLanes;  // each store also writes what the next one overwrites; the last one must not
  Vec v[kLanes];
  int64_t k = 0;
  if (rows >= kRows) {
    for (; k + kLanes + kSpill <= depth; k += kLanes, from += kLanes) {
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) v[r] = r < kRows ? load(from + r * stride) : Vec{};
      transpose(v);
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; ++j) store(out + (k + j) * kWidth, v[j]);
    }
  }
  for (; k < depth; k += kLanes, from += kLanes) {
    const int64_t left = depth - k < kLanes ? depth - k : kLanes;
#pragma GCC unroll 16
    for (int r = 0; r < kLanes; ++r) v[r] = r < kRows && r < rows ? load_part(from + r * stride, left) : Vec{};
    transpose(v);
#pragma GCC unroll 16
    for (int j = 0; j < kLanes; ++j)
      if (j < left) store_part(out + (k + j) * kWidth, v[j], kRows);
  }
}

// `rows` lines are there × depth, of which `last` says whether the panel ends with them.
template <int kWidth>
OPLUS_INLINE void pack_across(const float* from, int64_t stride, int64_t rows, int64_t depth, bool last, float* out) {
  constexpr int kRead = (kWidth + kLanes - 1) / kLanes * kLanes;
  int64_t k = 0;
  if (rows >= kRead) {
    const int64_t whole = depth - (last && kRead > kWidth);
    for (; k < whole; ++k)
#pragma GCC unroll 2
      for (int g = 0; g < kWidth; g += kLanes) store(out + k * kWidth + g, load(from + k * stride + g));
  }
  for (; k < depth; ++k)
#pragma GCC unroll 2
    for (int g = 0; g < kWidth; g += kLanes)
      store_part(out + k * kWidth + g, rows > g ? load_part(from + k * stride + g, rows - g) : Vec{}, kWidth - g);
}

// Panels [first, end) × [k, k + depth) to `out`, one after the other; lines at or past `count` are zeros.
template <int kWidth>
static inline void pack(const Lines& lines, int64_t count, int64_t first, int64_t end, int64_t k, int64_t depth, float* out) {
  static_assert(kWidth <= kLanes || kWidth % kLanes == 0);
  constexpr int kRows = kWidth < kLanes ? kWidth : kLanes;
  if (lines.along) {
    for (int64_t line = first * kWidth; line < end * kWidth; line += kWidth, out += kWidth * depth)
      for (int g = 0; g < kWidth; g += kLanes)
        pack_along<kWidth, kRows>(lines.at(line + g, k), lines.stride, count - line - g, depth, out + g);
    return;
  }
  // A few steps of k for all panels, then the next few: whole cache lines and pages are used while they are near.
  constexpr int64_t kSteps = 16;
  for (int64_t i = 0; i < depth; i += kSteps) {
    const int64_t steps = depth - i < kSteps ? depth - i : kSteps;
    for (int64_t p = first; p < end; ++p)
      pack_across<kWidth>(lines.at(p * kWidth, k + i), lines.stride, count - p * kWidth, steps, i + steps == depth,
                          out + ((p - first) * depth + i) * kWidth);
  }
}

}  // namespace oplus::OPLUS_TARGET
