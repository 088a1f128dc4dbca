// Panels of a matrix on their way from memory to shared memory: kWidth lines side by side, kDepth deep. Lines are rows of
// op(A) and columns of op(B), so both operands of a product, transposed or not, go through the same code. Used by matmul
// and by attention.
#pragma once
#include "sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

// A matrix as it lies in memory, seen as lines: element k of line r is data[r · stride + k] if kAlong, else
// data[k · stride + r]. What is outside reads as 0.
template <bool kAlongOf, bool kFour>
struct Lines {
  static constexpr bool kAlong = kAlongOf;
  const float* data;
  int64_t stride, lines, depth;

  // Four elements that lie side by side: from k on if kAlong, else from line r on.
  __device__ Pack<4> four(int64_t r, int64_t k) const {
    Pack<4> v = {};
    const float* p = kAlong ? data + r * stride + k : data + k * stride + r;
    if (kFour) {  // the side along memory is a multiple of four, so all four are inside or none is
      if (r < lines && k < depth) v = load_pack<4>(p);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (kAlong ? r < lines && k + j < depth : r + j < lines && k < depth) v.x[j] = p[j];
    }
    return v;
  }
};

// Rows of shared panels are four floats longer than they need be: 16-byte accesses stay aligned, and stores of a line down
// its column fall into different banks.
constexpr int kPanelPad = 4;

template <int kWidth, int kDepth, int kThreads>
struct Panel {
  static constexpr int kQuads = kWidth * kDepth / 4 / kThreads;  // four floats each, a thread
  static_assert(kQuads * 4 * kThreads == kWidth * kDepth);
  using Shared = float[kDepth][kWidth + kPanelPad];
  Pack<4> quad[kQuads];

  template <bool kAlong>
  __device__ static void place(int i, int* r, int* k) {
    const int q = static_cast<int>(threadIdx.x) + i * kThreads;
    *r = kAlong ? q / (kDepth / 4) : q % (kWidth / 4) * 4;
    *k = kAlong ? q % (kDepth / 4) * 4 : q / (kWidth / 4);
  }
  // From memory into registers: nothing waits for it until `put`.
  template <typename From>
  __device__ void fetch(const From& from, int64_t line, int64_t depth) {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      int r, k;
      place<From::kAlong>(i, &r, &k);
      quad[i] = from.four(line + r, depth + k);
    }
  }
  template <bool kAlong>
  __device__ void put(Shared& to) const {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      int r, k;
      place<kAlong>(i, &r, &k);
      if (kAlong) {
#pragma unroll
        for (int j = 0; j < 4; ++j) to[k + j][r] = quad[i].x[j];
      } else {
        store_pack<4>(&to[k][r], quad[i]);
      }
    }
  }
};

}  // namespace
}  // namespace oplus::OPLUS_TARGET
