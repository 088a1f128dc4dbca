// The first weight that is not a finite number, or whose block's scale is not.
//
// Numbers by themselves are read 16 bytes at a time, of blocks only their scales. A thread goes up by the grid's stride and
// ends at the first fault that it finds; `found` takes the smallest of them. As an unsigned number, −1 (none) is the largest.
#include "cuda/sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

constexpr int kThreads = 256;

struct Scales {  // where a kind keeps its 16-bit floats, and which bits of them are the exponent
  int64_t numbers, bytes, first, second;
  uint16_t exponent;
};
constexpr Scales kScales[] = {{1, 4, 2, 2, 0x7f80},        {1, 2, 0, 0, 0x7c00},   {1, 2, 0, 0, 0x7f80},
                              {32, 34, 0, 0, 0x7c00},      {32, 18, 0, 0, 0x7c00}, {256, 144, 0, 2, 0x7c00},
                              {256, 210, 208, 208, 0x7c00}};

__global__ void no_fault(int32_t* found) { *found = -1; }

__device__ void note(int32_t* found, int64_t number) {
  atomicMin(reinterpret_cast<unsigned*>(found), static_cast<unsigned>(number < INT32_MAX ? number : INT32_MAX));
}

// Numbers of kHalves times 16 bits, the exponent in the last of them; w starts at a multiple of 16.
template <int kHalves>
__global__ void __launch_bounds__(kThreads)
    fault_of_numbers(const uint16_t* w, int64_t packs, uint16_t exponent, int32_t* found) {
  for (int64_t i = global_thread(); i < packs; i += global_threads()) {
    const auto halves = load_pack<8>(w + 8 * i);
#pragma unroll
    for (int j = kHalves - 1; j < 8; j += kHalves)
      if ((halves.x[j] & exponent) == exponent) return note(found, (8 * i + j) / kHalves);
  }
}

// Blocks [first, count) of w, wherever it starts.
__global__ void __launch_bounds__(kThreads)
    fault_of_blocks(const uint8_t* w, int64_t first, int64_t count, Scales scales, int32_t* found) {
  const auto fault = [&](const uint8_t* p) { return ((p[0] | p[1] << 8) & scales.exponent) == scales.exponent; };
  for (int64_t i = first + global_thread(); i < count; i += global_threads()) {
    const uint8_t* block = w + i * scales.bytes;
    if (fault(block + scales.first) || fault(block + scales.second)) return note(found, i * scales.numbers);
  }
}

void first_fault(Stream stream, In<uint8_t> w, Out<int32_t> found, int64_t kind, int64_t n) {
  if (kind < 0 || kind >= static_cast<int64_t>(sizeof kScales / sizeof *kScales))
    fail(OPLUS_BAD_SHAPE, "there is no kind %lld of stored weights", static_cast<long long>(kind));
  const Scales scales = kScales[kind];
  if (n % scales.numbers) fail(OPLUS_BAD_SHAPE, "%lld numbers, expected whole blocks", static_cast<long long>(n));
  const int64_t count = n / scales.numbers;
  expect("w", w, volume(count, scales.bytes));
  expect("found", found, 1);
  gpu::launch(no_fault, 1, 1, stream, found.data);
  int64_t first = 0;  // block that no pack of numbers holds
  if (scales.numbers == 1 && aligned(w.data)) {
    const int64_t packs = count * scales.bytes / 16;
    first = packs * 16 / scales.bytes;
    gpu::launch(scales.bytes == 4 ? fault_of_numbers<2> : fault_of_numbers<1>, blocks_for(stream, divide_up(packs, kThreads)),
                kThreads, stream, reinterpret_cast<const uint16_t*>(w.data), packs, scales.exponent, found.data);
  }
  gpu::launch(fault_of_blocks, blocks_for(stream, divide_up(count - first, kThreads)), kThreads, stream, w.data, first, count,
              scales, found.data);
}

constexpr oplus_op list[] = {op<first_fault>("firstFault")};

}  // namespace

extern constinit const Ops first_fault_ops(list);

}  // namespace oplus::OPLUS_TARGET
