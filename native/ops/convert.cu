// Numbers stored otherwise: f32 to 16 bits and back (IEEE half and bfloat16, rounded to nearest even; NaN stays NaN), and
// pretrained weights from one way of storing them to another. The bits are those of the CPU (convert.cpp) in every case.
//
// narrow and widen: cuda/each.h says who does what. convertStored: eight lanes have 32 numbers of a row, four each. Every array
// is read or written once.
#include "cuda/each.h"
#include "cuda/stored.h"
#include "ops/half.h"

namespace oplus::OPLUS_TARGET {
namespace {

enum Kind { kHalf = 0, kBfloat = 1 };

template <Kind kKind>
struct Narrow {
  const float* x;
  uint16_t* y;
  template <int V>
  __device__ void run(int64_t i) const {
    const Pack<V> in = load_pack<V>(x + i);
    Pack<V, uint16_t> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] = kKind == kHalf ? to_half(in.x[j]) : to_bfloat(in.x[j]);
    store_pack<V>(y + i, out);
  }
};

template <Kind kKind>
struct Widen {
  const uint16_t* x;
  float* y;
  template <int V>
  __device__ void run(int64_t i) const {
    const Pack<V, uint16_t> in = load_pack<V>(x + i);
    Pack<V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] = kKind == kHalf ? from_half(in.x[j]) : from_bfloat(in.x[j]);
    store_pack<V>(y + i, out);
  }
};

void expect_kind(int64_t kind) {
  if (kind != kHalf && kind != kBfloat)
    fail(OPLUS_BAD_SHAPE, "`kind` is %lld, expected 0 (f16) or 1 (bf16)", static_cast<long long>(kind));
}

void narrow(Stream stream, In<float> x, Out<uint16_t> y, int64_t kind, int64_t n) {
  volume(n);
  expect_kind(kind);
  expect("x", x, n);
  expect("y", y, n);
  if (kind == kHalf) run_each(stream, aligned(x.data, y.data), n, Narrow<kHalf>{x.data, y.data});
  else run_each(stream, aligned(x.data, y.data), n, Narrow<kBfloat>{x.data, y.data});
}

void widen(Stream stream, In<uint16_t> x, Out<float> y, int64_t kind, int64_t n) {
  volume(n);
  expect_kind(kind);
  expect("x", x, n);
  expect("y", y, n);
  if (kind == kHalf) run_each(stream, aligned(x.data, y.data), n, Widen<kHalf>{x.data, y.data});
  else run_each(stream, aligned(x.data, y.data), n, Widen<kBfloat>{x.data, y.data});
}

// ---- weights ---------------------------------------------------------------------------------

constexpr int kConvertThreads = 256;

// What a lane does with its numbers k … k + 3 of a row, n ≤ 4 of them there; all lanes of a warp call it together.
struct ToF32 {
  static constexpr int64_t kNumbers = 1, kBytes = 4;
  __device__ static void put(const Pack<4>& w, uint8_t* row, int64_t k, int64_t n) {
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (j < n) reinterpret_cast<float*>(row)[k + j] = w.x[j];
  }
};
template <Kind kKind>
struct ToHalves {
  static constexpr int64_t kNumbers = 1, kBytes = 2;
  __device__ static void put(const Pack<4>& w, uint8_t* row, int64_t k, int64_t n) {
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (j < n) reinterpret_cast<uint16_t*>(row)[k + j] = kKind == kHalf ? to_half(w.x[j]) : to_bfloat(w.x[j]);
  }
};
// As ops/stored_narrow.h has it.
struct ToQ8_0 {
  static constexpr int64_t kNumbers = 32, kBytes = 34;
  __device__ static int quantized(float x, float inverse) {
    return static_cast<int>(roundf(fminf(fmaxf(x * inverse, -127.0f), 127.0f)));
  }
  __device__ static void put(const Pack<4>& w, uint8_t* row, int64_t k, int64_t n) {
    float most = 0, faults = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) most = fmaxf(most, fabsf(w.x[j])), faults += w.x[j] * 0.0f;
#pragma unroll
    for (int step = 4; step; step /= 2) {
      most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, step));
      faults += __shfl_xor_sync(kAllLanes, faults, step);
    }
    if (n <= 0) return;
    const float scale = most / 127.0f + faults;
    const uint16_t d = to_half(scale);
    const float inverse = from_half(d) == 0 ? 0.0f : 1.0f / scale;
    auto* block = reinterpret_cast<uint16_t*>(row + k / 32 * kBytes);
    if (k % 32 == 0) block[0] = d;
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
      const int low = quantized(w.x[j], inverse) & 255, high = quantized(w.x[j + 1], inverse) & 255;
      block[1 + (k % 32 + j) / 2] = static_cast<uint16_t>(low | high << 8);
    }
  }
};

template <typename To, typename Lines>
__global__ void __launch_bounds__(kConvertThreads) convert_rows(Lines rows, uint8_t* y, int64_t stride, int64_t fours) {
  const int64_t all = rows.lines * fours;
  for (int64_t first = global_thread() / 32 * 32; first < all; first += global_threads()) {
    const int64_t i = first + threadIdx.x % 32, line = i / fours, k = i % fours * 4;
    To::put(rows.four(line, k), y + line * stride, k, line < rows.lines ? min(rows.depth - k, int64_t{4}) : 0);
  }
}

template <typename To, typename Lines>
void convert_to(Stream stream, const Lines& rows, Out<uint8_t> y) {
  if (rows.depth % To::kNumbers)
    fail(OPLUS_BAD_SHAPE, "rows of %lld numbers, expected a multiple of the %lld of a block", static_cast<long long>(rows.depth),
         static_cast<long long>(To::kNumbers));
  const int64_t stride = volume(rows.depth / To::kNumbers, To::kBytes);
  expect("y", y, volume(rows.lines, stride));
  const int64_t fours = 8 * divide_up(rows.depth, 32);
  const unsigned count = blocks_for(stream, divide_up(volume(rows.lines, fours), kConvertThreads));
  if (count) gpu::launch(convert_rows<To, Lines>, count, kConvertThreads, stream, rows, y.data, stride, fours);
}

void convert_stored(Stream stream, In<uint8_t> x, Out<uint8_t> y, int64_t from, int64_t to, int64_t N, int64_t C) {
  with_stored(from, x, N, C, [&](const auto& rows) {
    switch (to) {
      case kStoredF32:
        return convert_to<ToF32>(stream, rows, y);
      case kStoredF16:
        return convert_to<ToHalves<kHalf>>(stream, rows, y);
      case kStoredBf16:
        return convert_to<ToHalves<kBfloat>>(stream, rows, y);
      case kStoredQ8_0:
        return convert_to<ToQ8_0>(stream, rows, y);
      default:
        fail(OPLUS_BAD_SHAPE, "kind %lld to store, expected 0 (f32), 1 (f16), 2 (bf16) or 3 (q8_0)", static_cast<long long>(to));
    }
  });
}
double convert_stored_cost(In<uint8_t>, Out<uint8_t>, int64_t, int64_t, int64_t N, int64_t C) {
  return static_cast<double>(N) * static_cast<double>(C);
}

constexpr oplus_op list[] = {op<narrow>("narrow"), op<widen>("widen"), op<convert_stored, convert_stored_cost>("convertStored")};

}  // namespace

extern constinit const Ops convert_ops(list);

}  // namespace oplus::OPLUS_TARGET
