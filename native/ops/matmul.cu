// Matrix products in f32: y = x · wᵀ + b, and the general product that gradients need. Few rows or columns: cuda/narrow.h.
//
// A block of 256 threads makes a tile of y, 128 × 128 or 64 × 64, a thread 8 × 8 or 4 × 4 of it in registers (rows and
// columns in fours, 64 apart). Panels 16 deep of both operands go through shared memory, two of each: while one pair is
// multiplied, the next is on its way into registers. A tile reads its rows of both operands once. Where there are too few
// tiles to fill the card, the depth is cut into parts along grid.y, which cuda/columns.h adds in order.
#include "cuda/columns.h"
#include "cuda/narrow.h"
#include "cuda/panel.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kThreads = 256;
constexpr int kDepth = 16;           // two pairs of panels for 128 × 128 take 34 KB of shared memory
constexpr int64_t kPartDepth = 256;  // depth worth a part of its own: 16 panels against writing and adding a tile

struct Result {
  float* y;           // [parts, M, N]
  const float* bias;  // [N] or null: goes into the first part
  int64_t M, N;
  int64_t columns;  // tiles side by side
  int64_t part;     // depth of a part, a multiple of kDepth
  bool four;        // rows of y can be written four floats at a time
};

// Blocks a multiprocessor are said because the compiler would else rather spill registers than have one less.
template <int kTile, bool kAlongA, bool kAlongB, bool kFour>
__global__ void __launch_bounds__(kThreads, kTile == 128 ? 1 : 2)
    tiles(Lines<kAlongA, kFour> a, Lines<kAlongB, kFour> b, Result out) {
  constexpr int kSide = kTile / 16;  // rows and columns a thread
  using Side = Panel<kTile, kDepth, kThreads>;
  GPU_SHARED(typename Side::Shared, panel_a, [2]);
  GPU_SHARED(typename Side::Shared, panel_b, [2]);
  const int ty = static_cast<int>(threadIdx.x) / 16, tx = static_cast<int>(threadIdx.x) % 16;
  const int64_t row = blockIdx.x / out.columns * kTile, column = blockIdx.x % out.columns * kTile;
  const int64_t first = blockIdx.y * out.part, end = min(a.depth, first + out.part);
  float sum[kSide][kSide] = {};

  Side next_a, next_b;
  if (first < end) {
    next_a.fetch(a, row, first), next_b.fetch(b, column, first);
    next_a.template put<kAlongA>(panel_a[0]), next_b.template put<kAlongB>(panel_b[0]);
  }
  __syncthreads();
  int now = 0;
  for (int64_t k = first; k < end; k += kDepth, now ^= 1) {
    const bool more = k + kDepth < end;
    if (more) next_a.fetch(a, row, k + kDepth), next_b.fetch(b, column, k + kDepth);
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      float x[kSide], w[kSide];
#pragma unroll
      for (int i = 0; i < kSide; i += 4) {
        const Pack<4> p = load_pack<4>(&panel_a[now][d][i * 16 + ty * 4]), q = load_pack<4>(&panel_b[now][d][i * 16 + tx * 4]);
#pragma unroll
        for (int j = 0; j < 4; ++j) x[i + j] = p.x[j], w[i + j] = q.x[j];
      }
#pragma unroll
      for (int i = 0; i < kSide; ++i)
#pragma unroll
        for (int j = 0; j < kSide; ++j) sum[i][j] += x[i] * w[j];
    }
    if (more) next_a.template put<kAlongA>(panel_a[now ^ 1]), next_b.template put<kAlongB>(panel_b[now ^ 1]);
    __syncthreads();
  }

  float* y = out.y + blockIdx.y * out.M * out.N;
  const float* bias = blockIdx.y == 0 ? out.bias : nullptr;
#pragma unroll
  for (int i = 0; i < kSide; ++i) {
    const int64_t m = row + i / 4 * 64 + ty * 4 + i % 4;
#pragma unroll
    for (int j = 0; j < kSide; j += 4) {
      const int64_t n = column + j * 16 + tx * 4;
      if (m >= out.M || n >= out.N) continue;
      Pack<4> v;
#pragma unroll
      for (int e = 0; e < 4; ++e) v.x[e] = sum[i][j + e] + (bias && n + e < out.N ? bias[n + e] : 0.0f);
      if (out.four) {
        store_pack<4>(y + m * out.N + n, v);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e)
          if (n + e < out.N) y[m * out.N + n + e] = v.x[e];
      }
    }
  }
}

// y[M, N] = op(a) · op(b) + bias
struct Product {
  const float *a, *b, *bias;
  float* y;
  int64_t M, N, K;
  bool transpose_a, transpose_b;
};

template <int kTile, bool kAlongA, bool kAlongB>
void launch_tiles(Stream stream, const Product& p, Result out, int64_t parts) {
  const dim3 grid(blocks(divide_up(p.M, kTile) * out.columns), blocks(parts));
  const int64_t stride_a = kAlongA ? p.K : p.M, stride_b = kAlongB ? p.K : p.N;
  const auto run = [&](auto four) {
    const Lines<kAlongA, four> a{p.a, stride_a, p.M, p.K};
    const Lines<kAlongB, four> b{p.b, stride_b, p.N, p.K};
    gpu::launch(tiles<kTile, kAlongA, kAlongB, four>, grid, kThreads, stream, a, b, out);
  };
  if (stride_a % 4 == 0 && stride_b % 4 == 0 && aligned(p.a, p.b)) run(std::true_type{});
  else run(std::false_type{});
}

template <int kTile>
void run_tiles(Stream stream, const Product& p) {
  const int64_t across = divide_up(p.N, kTile), count = divide_up(p.M, kTile) * across;
  const int64_t wanted = divide_up(2 * gpu::processors(stream), count);
  int64_t parts = at_least(1, at_most(at_most(wanted, kMostParts), p.K / kPartDepth));
  const int64_t part = at_least(1, divide_up(divide_up(p.K, parts), kDepth)) * kDepth;
  parts = at_least(1, divide_up(p.K, part));
  float* y = parts > 1 ? gpu::scratch(stream, parts * p.M * p.N) : p.y;
  const Result out{y, p.bias, p.M, p.N, across, part, p.N % 4 == 0 && aligned(y)};
  if (p.transpose_a)
    p.transpose_b ? launch_tiles<kTile, false, true>(stream, p, out, parts)
                  : launch_tiles<kTile, false, false>(stream, p, out, parts);
  else
    p.transpose_b ? launch_tiles<kTile, true, true>(stream, p, out, parts)
                  : launch_tiles<kTile, true, false>(stream, p, out, parts);
  if (parts > 1) launch_columns(stream, y, p.y, 1, parts, p.M * p.N, 1);
}

void product(Stream stream, const Product& p) {
  if (p.M == 0 || p.N == 0) return;
  // The wide operand of a narrow product, and the few lines that meet it.
  const bool few_rows = p.M <= kFewLines, few_columns = !few_rows && p.N <= kFewLines;
  if (few_rows || few_columns) {
    const Few few = few_rows ? Few{p.a, p.transpose_a ? 1 : p.K, p.transpose_a ? p.M : 1, p.M}
                             : Few{p.b, p.transpose_b ? p.K : 1, p.transpose_b ? 1 : p.N, p.N};
    const float* wide = few_rows ? p.b : p.a;
    const int64_t lines = few_rows ? p.N : p.M;
    const Narrow out{p.y,      few_rows ? p.N : 1, few_rows ? 1 : p.N, few_rows ? p.bias : nullptr, few_rows ? nullptr : p.bias,
                     p.M * p.N};
    if (few_rows ? p.transpose_b : !p.transpose_a) return along_lines(stream, few, wide, lines, p.K, out);
    return across_lines(stream, few, wide, lines, p.K, out);
  }
  // Large tiles do four times the work for twice the reads, where there are enough of them to fill the card.
  if (divide_up(p.M, 128) * divide_up(p.N, 128) >= gpu::processors(stream)) run_tiles<128>(stream, p);
  else run_tiles<64>(stream, p);
}

void linear(Stream stream, In<float> x, In<float> w, MaybeIn<float> b, Out<float> y, int64_t N, int64_t C, int64_t F) {
  expect("x", x, volume(N, C)), expect("w", w, volume(F, C)), expect("b", b, F), expect("y", y, volume(N, F));
  product(stream, {x.data, w.data, b.data, y.data, N, F, C, false, true});
}
double linear_cost(In<float>, In<float>, MaybeIn<float>, Out<float>, int64_t N, int64_t C, int64_t F) {
  return static_cast<double>(N) * static_cast<double>(C) * static_cast<double>(F);
}

void matmul(Stream stream, In<float> a, In<float> b, Out<float> y, int64_t M, int64_t N, int64_t K, bool transpose_a,
            bool transpose_b) {
  expect("a", a, volume(M, K)), expect("b", b, volume(K, N)), expect("y", y, volume(M, N));
  product(stream, {a.data, b.data, nullptr, y.data, M, N, K, transpose_a, transpose_b});
}
double matmul_cost(In<float>, In<float>, Out<float>, int64_t M, int64_t N, int64_t K, bool, bool) {
  return static_cast<double>(M) * static_cast<double>(N) * static_cast<double>(K);
}

constexpr oplus_op list[] = {op<linear, linear_cost>("linear"), op<matmul, matmul_cost>("matmul")};

}  // namespace

extern constinit const Ops matmul_ops(list);

}  // namespace oplus::OPLUS_TARGET
