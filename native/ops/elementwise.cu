// Element by element: fill, add, mul, scale, accumulate; blocks copied between layouts; sums over a dimension are in sum.cu.
//
// Who does what: cuda/each.h. Every array is read or written once. Output may be input: a thread reads its own elements
// before it writes them.
#include "cuda/each.h"

namespace oplus::OPLUS_TARGET {
namespace {

// ---- kernels -----------------------------------------------------------------------------------

// Row and column of a flat index that moves on by the grid's stride: one division a thread instead of one an element.
// f(row, column) handles V elements of a row.
template <int V, typename F>
__global__ void __launch_bounds__(kEachThreads, kEachBlocks) each_of_rows(int64_t rows, int64_t width, F f) {
  const int64_t row_step = global_threads() * V / width, column_step = global_threads() * V % width;
  int64_t row = global_thread() * V / width, column = global_thread() * V % width;
  while (row < rows) {
    f.template run<V>(row, column);
    row += row_step;
    column += column_step;
    if (column >= width) column -= width, ++row;
  }
}

struct Fill {
  float* x;
  float value;
  template <int V>
  __device__ void run(int64_t i) const {
    Pack<V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] = value;
    store_pack<V>(x + i, out);
  }
};

struct Scale {
  const float* x;
  float* y;
  float factor;
  template <int V>
  __device__ void run(int64_t i) const {
    Pack<V> out = load_pack<V>(x + i);
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] *= factor;
    store_pack<V>(y + i, out);
  }
};

struct Accumulate {
  const float* x;
  float* y;
  template <int V>
  __device__ void run(int64_t i) const {
    const Pack<V> in = load_pack<V>(x + i);
    Pack<V> out = load_pack<V>(y + i);
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] += in.x[j];
    store_pack<V>(y + i, out);
  }
};

template <bool kProduct>
struct Combine {  // y[row, i] = a[row, i] + b[i], or ·
  const float *a, *b;
  float* y;
  int64_t n;
  template <int V>
  __device__ void run(int64_t row, int64_t i) const {
    Pack<V> out = load_pack<V>(a + row * n + i);
    const Pack<V> other = load_pack<V>(b + i);
#pragma unroll
    for (int j = 0; j < V; ++j) out.x[j] = kProduct ? out.x[j] * other.x[j] : out.x[j] + other.x[j];
    store_pack<V>(y + row * n + i, out);
  }
};

struct Copy {
  const float* x;
  float* y;
  int64_t x_stride, y_stride;
  template <int V>
  __device__ void run(int64_t row, int64_t i) const {
    store_pack<V>(y + row * y_stride + i, load_pack<V>(x + row * x_stride + i));
  }
};

// ---- launchers ---------------------------------------------------------------------------------

template <typename F>
void run_rows(Stream stream, bool four, int64_t rows, int64_t width, F f) {
  const int64_t n = volume(rows, width);
  if (four && width % 4 == 0)
    gpu::launch(each_of_rows<4, F>, blocks_for(stream, divide_up(n / 4, kEachThreads)), kEachThreads, stream, rows, width, f);
  else gpu::launch(each_of_rows<1, F>, blocks_for(stream, divide_up(n, kEachThreads)), kEachThreads, stream, rows, width, f);
}

void fill(Stream stream, Out<float> x, float value, int64_t n) {
  expect("x", x, volume(n));
  run_each(stream, aligned(x.data), n, Fill{x.data, value});
}

template <bool kProduct>
void combine(Stream stream, const In<float>& a, const In<float>& b, const Out<float>& y, int64_t rows, int64_t n) {
  const int64_t size = volume(rows, n);
  expect("a", a, size);
  expect("b", b, rows ? n : 0);
  expect("y", y, size);
  run_rows(stream, aligned(a.data, b.data, y.data), rows, n, Combine<kProduct>{a.data, b.data, y.data, n});
}
void add(Stream stream, In<float> a, In<float> b, Out<float> y, int64_t rows, int64_t n) {
  combine<false>(stream, a, b, y, rows, n);
}
void mul(Stream stream, In<float> a, In<float> b, Out<float> y, int64_t rows, int64_t n) {
  combine<true>(stream, a, b, y, rows, n);
}

void scale(Stream stream, In<float> x, Out<float> y, float factor, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("y", y, n);
  run_each(stream, aligned(x.data, y.data), n, Scale{x.data, y.data, factor});
}

void accumulate(Stream stream, In<float> x, InOut<float> y, int64_t n) {
  volume(n);
  expect("x", x, n);
  expect("y", y, n);
  run_each(stream, aligned(x.data, y.data), n, Accumulate{x.data, y.data});
}

void copy_block(Stream stream, In<float> x, InOut<float> y, int64_t outer, int64_t width, int64_t x_stride, int64_t x_offset,
                int64_t y_stride, int64_t y_offset) {
  if (volume(outer, width) == 0) return;
  volume(outer, x_stride), volume(outer, y_stride);
  if (x_offset < 0 || y_offset < 0) fail(OPLUS_BAD_SHAPE, "%s", "an offset is negative");
  expect("x", x, (outer - 1) * x_stride + x_offset + width);
  expect("y", y, (outer - 1) * y_stride + y_offset + width);
  const Copy copy{x.data + x_offset, y.data + y_offset, x_stride, y_stride};
  run_rows(stream, aligned(copy.x, copy.y) && x_stride % 4 == 0 && y_stride % 4 == 0, outer, width, copy);
}

constexpr oplus_op list[] = {
    op<fill>("fill"),           op<add>("add"), op<mul>("mul"), op<scale>("scale"), op<accumulate>("accumulate"),
    op<copy_block>("copyBlock")};

}  // namespace

extern constinit const Ops elementwise_ops(list);

}  // namespace oplus::OPLUS_TARGET
