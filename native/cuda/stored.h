// Weights as the files of pretrained models store them, in kernels: how the numbers of a block get into registers.
//
// A kind has blocks of kNumbers numbers in kBytes bytes, read in pieces of kPiece numbers that share bytes: decode(block, piece,
// left, w) gives the fours of a piece, the i-th of which starts at number column(piece, i) of the block, and four(block, k,
// left) numbers k … k + 3. `left` numbers of the row begin with the block; behind them there are zeros (only Loose kinds
// have blocks that a row may cut). Blocks start at any even address, so that most bytes come two at a time; kWide kinds
// start at a multiple of 16.
#pragma once
#include "sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

enum StoredKind { kStoredF32, kStoredF16, kStoredBf16, kStoredQ8_0, kStoredQ4_0, kStoredQ4K, kStoredQ6K };

// kWords words of four bytes: one access where kWide, and the address a multiple of their size.
template <int kWords, bool kWide = false>
__device__ void load_words(const uint8_t* p, uint32_t (&w)[kWords]) {
  if constexpr (kWide) {
    const auto all = load_pack<kWords>(reinterpret_cast<const uint32_t*>(p));
#pragma unroll
    for (int i = 0; i < kWords; ++i) w[i] = all.x[i];
  } else {
    const auto* halves = reinterpret_cast<const uint16_t*>(p);
#pragma unroll
    for (int i = 0; i < kWords; ++i) w[i] = halves[2 * i] | static_cast<uint32_t>(halves[2 * i + 1]) << 16;
  }
}
__device__ inline float half_at(const uint8_t* p) { return gpu::widen_half(*reinterpret_cast<const uint16_t*>(p)); }
__device__ inline float signed_byte(uint32_t word, int j) { return static_cast<float>(static_cast<int8_t>(word >> 8 * j & 255)); }

// ---- numbers by themselves -------------------------------------------------------------------

struct AsFloat {  // how the bits of a number become a float
  using Bits = uint32_t;
  __device__ static float number(uint32_t x) { return __uint_as_float(x); }
};
struct AsHalf {
  using Bits = uint16_t;
  __device__ static float number(uint16_t x) { return gpu::widen_half(x); }
};
struct AsBfloat {
  using Bits = uint16_t;
  __device__ static float number(uint16_t x) { return __uint_as_float(static_cast<uint32_t>(x) << 16); }
};

// 16 bytes at a time: rows are multiples of that.
template <typename As>
struct Wide16 {
  using Bits = typename As::Bits;
  static constexpr int kNumbers = 16 / static_cast<int>(sizeof(Bits)), kBytes = 16, kPiece = kNumbers, kPieces = 1;
  __device__ static int column(int, int i) { return 4 * i; }
  __device__ static void decode(const uint8_t* block, int, int64_t, Pack<4> (&w)[kPiece / 4]) {
    const auto all = load_pack<kNumbers>(reinterpret_cast<const Bits*>(block));
#pragma unroll
    for (int i = 0; i < kNumbers; ++i) w[i / 4].x[i % 4] = As::number(all.x[i]);
  }
  __device__ static Pack<4> four(const uint8_t* block, int k, int64_t) {
    const auto bits = load_pack<4>(reinterpret_cast<const Bits*>(block) + k);
    Pack<4> w;
#pragma unroll
    for (int i = 0; i < 4; ++i) w.x[i] = As::number(bits.x[i]);
    return w;
  }
};

// Rows of any length at any even address.
template <typename As>
struct Loose {
  static constexpr int kSize = static_cast<int>(sizeof(typename As::Bits));
  static constexpr int kNumbers = 4, kBytes = 4 * kSize, kPiece = 4, kPieces = 1;
  __device__ static int column(int, int i) { return 4 * i; }
  __device__ static Pack<4> four(const uint8_t* block, int, int64_t left) {
    const auto* halves = reinterpret_cast<const uint16_t*>(block);
    Pack<4> w = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i >= left) break;
      if constexpr (kSize == 2) w.x[i] = As::number(halves[i]);
      else w.x[i] = As::number(halves[2 * i] | static_cast<uint32_t>(halves[2 * i + 1]) << 16);
    }
    return w;
  }
  __device__ static void decode(const uint8_t* block, int, int64_t left, Pack<4> (&w)[1]) { w[0] = four(block, 0, left); }
};

// ---- ggml's blocks ---------------------------------------------------------------------------

// {f16 d; i8 q[32]}: d · q
struct Q8_0 {
  static constexpr int kNumbers = 32, kBytes = 34, kPiece = 8, kPieces = 4;
  __device__ static int column(int piece, int i) { return 8 * piece + 4 * i; }
  template <int kFours>
  __device__ static void numbers(const uint8_t* block, int k, Pack<4> (&w)[kFours]) {
    const float d = half_at(block);
    uint32_t q[kFours];
    load_words(block + 2 + k, q);
#pragma unroll
    for (int i = 0; i < 4 * kFours; ++i) w[i / 4].x[i % 4] = d * signed_byte(q[i / 4], i % 4);
  }
  __device__ static void decode(const uint8_t* block, int piece, int64_t, Pack<4> (&w)[2]) { numbers(block, 8 * piece, w); }
  __device__ static Pack<4> four(const uint8_t* block, int k, int64_t) {
    Pack<4> w[1];
    numbers(block, k, w);
    return w[0];
  }
};

// Four numbers of four bits each, the low ones of the bytes (shift 0) or the high ones (4): scale · bits + offset.
__device__ inline Pack<4> nibbles(uint32_t word, int shift, float scale, float offset) {
  Pack<4> w;
#pragma unroll
  for (int j = 0; j < 4; ++j) w.x[j] = scale * static_cast<float>(word >> (8 * j + shift) & 15) + offset;
  return w;
}

// {f16 d; u8 q[16]}: d · (low nibbles − 8) are the first 16 numbers, d · (high nibbles − 8) the others
struct Q4_0 {
  static constexpr int kNumbers = 32, kBytes = 18, kPiece = 16, kPieces = 2;
  __device__ static int column(int piece, int i) { return 8 * piece + 4 * (i % 2) + 16 * (i / 2); }
  __device__ static void decode(const uint8_t* block, int piece, int64_t, Pack<4> (&w)[4]) {
    const float d = half_at(block);
    uint32_t q[2];
    load_words(block + 2 + 8 * piece, q);
#pragma unroll
    for (int i = 0; i < 4; ++i) w[i] = nibbles(q[i % 2], i / 2 * 4, d, -8 * d);
  }
  __device__ static Pack<4> four(const uint8_t* block, int k, int64_t) {
    const float d = half_at(block);
    uint32_t q[1];
    load_words(block + 2 + k % 16, q);
    return nibbles(q[0], k / 16 * 4, d, -8 * d);
  }
};

// {f16 d; f16 dmin; u8 scales[12]; u8 qs[128]}: 8 parts of 32 numbers, d · scale · nibble − dmin · min, 6 bits for each scale and
// min. Parts 2i and 2i + 1 are the low and the high nibbles of 32 bytes.
template <bool kWide>
struct Q4K {
  static constexpr int kNumbers = 256, kBytes = 144, kPiece = 16, kPieces = 16;
  __device__ static int column(int piece, int i) { return piece / 4 * 64 + i / 2 * 32 + piece % 4 * 8 + i % 2 * 4; }

  struct Scale {
    float d, m;
  };
  // Of a part. header: the block's first 16 bytes.
  __device__ static Scale scale(const uint32_t (&header)[4], int part) {
    const auto byte = [&](int i) {  // of the 12; chosen without an address, so that they stay in registers
      const uint32_t word = i < 4 ? header[1] : i < 8 ? header[2] : header[3];
      return word >> 8 * (i % 4) & 255;
    };
    const uint32_t d = part < 4 ? byte(part) & 63 : (byte(part + 4) & 15) | byte(part - 4) >> 6 << 4;
    const uint32_t m = part < 4 ? byte(part + 4) & 63 : byte(part + 4) >> 4 | byte(part) >> 6 << 4;
    return {gpu::widen_half(static_cast<uint16_t>(header[0])) * static_cast<float>(d),
            gpu::widen_half(static_cast<uint16_t>(header[0] >> 16)) * static_cast<float>(m)};
  }
  __device__ static void decode(const uint8_t* block, int piece, int64_t, Pack<4> (&w)[4]) {
    uint32_t header[4], q[2];
    load_words<4, kWide>(block, header), load_words<2, kWide>(block + 16 + 8 * piece, q);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Scale s = scale(header, piece / 4 * 2 + half);
      w[2 * half] = nibbles(q[0], 4 * half, s.d, -s.m), w[2 * half + 1] = nibbles(q[1], 4 * half, s.d, -s.m);
    }
  }
  __device__ static Pack<4> four(const uint8_t* block, int k, int64_t) {
    uint32_t header[4], q[1];
    load_words<4, kWide>(block, header), load_words<1, kWide>(block + 16 + k / 64 * 32 + k % 32, q);
    const Scale s = scale(header, k / 32);
    return nibbles(q[0], k / 32 % 2 * 4, s.d, -s.m);
  }
};

// {u8 ql[128]; u8 qh[64]; i8 scales[16]; f16 d}: 16 parts of 16 numbers, d · scale · (6 bits − 32). Of each half, four numbers 32
// apart share the bytes of their low four bits by twos and that of their high two.
struct Q6K {
  static constexpr int kNumbers = 256, kBytes = 210, kPiece = 16, kPieces = 16;
  __device__ static int column(int piece, int i) { return piece / 8 * 128 + 32 * i + piece % 8 * 4; }
  // Numbers 32 · quarter + l … + 3 of a half.
  __device__ static Pack<4> quarter_of(const uint8_t* block, int half, int quarter, int l, uint32_t low, uint32_t high, float d) {
    const auto scale = static_cast<int8_t>(block[192 + 8 * half + l / 16 + 2 * quarter]);
    const float each = d * static_cast<float>(scale);
    Pack<4> w;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t bits = (low >> (8 * j + quarter / 2 * 4) & 15) | (high >> (8 * j + 2 * quarter) & 3) << 4;
      w.x[j] = each * static_cast<float>(static_cast<int>(bits) - 32);
    }
    return w;
  }
  __device__ static void decode(const uint8_t* block, int piece, int64_t, Pack<4> (&w)[4]) {
    const int half = piece / 8, l = piece % 8 * 4;
    const float d = half_at(block + 208);
    uint32_t low[2][1], high[1];
    load_words(block + 64 * half + l, low[0]), load_words(block + 64 * half + 32 + l, low[1]);
    load_words(block + 128 + 32 * half + l, high);
#pragma unroll
    for (int i = 0; i < 4; ++i) w[i] = quarter_of(block, half, i, l, low[i % 2][0], high[0], d);
  }
  __device__ static Pack<4> four(const uint8_t* block, int k, int64_t) {
    const int half = k / 128, quarter = k / 32 % 4, l = k % 32;
    uint32_t low[1], high[1];
    load_words(block + 64 * half + quarter % 2 * 32 + l, low), load_words(block + 128 + 32 * half + l, high);
    return quarter_of(block, half, quarter, l, low[0], high[0], half_at(block + 208));
  }
};

// ---- matrices --------------------------------------------------------------------------------

// A matrix [lines, depth] of stored weights, an operand of tiles.h.
template <typename K>
struct StoredLines {
  static constexpr bool kAlong = true;
  const uint8_t* data;
  int64_t stride, lines, depth;  // stride: bytes of a line

  __device__ const uint8_t* block(int64_t line, int64_t i) const { return data + line * stride + i * K::kBytes; }
  __device__ Pack<4> four(int64_t line, int64_t k) const {
    if (line >= lines || k >= depth) return {};
    const int64_t i = k / K::kNumbers, left = depth - i * K::kNumbers;
    return K::four(block(line, i), static_cast<int>(k % K::kNumbers), left);
  }
};

// f(lines) for weights [F, C] of a kind that JavaScript gave; checks that w holds them.
template <typename T, typename F>
void with_stored(int64_t kind, const T& w, int64_t lines, int64_t C, F&& f) {
  constexpr int64_t kSizes[][2] = {{1, 4}, {1, 2}, {1, 2}, {32, 34}, {32, 18}, {256, 144}, {256, 210}};  // numbers, bytes
  if (kind < kStoredF32 || kind > kStoredQ6K)
    fail(OPLUS_BAD_SHAPE, "there is no kind %lld of stored weights", static_cast<long long>(kind));
  const auto [numbers, bytes] = kSizes[kind];
  if (C % numbers)
    fail(OPLUS_BAD_SHAPE, "rows of %lld numbers, expected a multiple of the %lld of a block", static_cast<long long>(C),
         static_cast<long long>(numbers));
  const int64_t stride = volume(C / numbers, bytes);
  expect("w", w, volume(lines, stride));
  if (reinterpret_cast<uintptr_t>(w.data) % 2) fail(OPLUS_BAD_SHAPE, "%s", "`w` starts at an odd address");
  const auto run = [&](auto k) { f(StoredLines<decltype(k)>{w.data, stride, lines, C}); };
  const bool wide = aligned(w.data) && stride % 16 == 0;
  switch (kind) {
    case kStoredF32:
      return wide ? run(Wide16<AsFloat>{}) : run(Loose<AsFloat>{});
    case kStoredF16:
      return wide ? run(Wide16<AsHalf>{}) : run(Loose<AsHalf>{});
    case kStoredBf16:
      return wide ? run(Wide16<AsBfloat>{}) : run(Loose<AsBfloat>{});
    case kStoredQ8_0:
      return run(Q8_0{});
    case kStoredQ4_0:
      return run(Q4_0{});
    case kStoredQ4K:
      return wide ? run(Q4K<true>{}) : run(Q4K<false>{});
    default:
      return run(Q6K{});
  }
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
