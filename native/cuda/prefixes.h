// The scan: every prefix of a sequence of leaves under ⊕. Forward pass, backward pass and the carry between chunks are this
// same kernel over other leaves.
//
//   thread  a unit of lanes (states.h) takes a run of neighbouring leaves, keeps them in registers and joins them one by one
//   warp    units join their totals with shuffles
//   block   warps leave their totals in shared memory; each joins those before it to what the block carries along, so a block
//           goes over a tile of (units × run) leaves, then the next tile. Two halves of shared memory: one barrier a tile
//   chunk   where there are too few sequences to fill the card, a sequence is cut: totals of every chunk (first launch), the
//           scan of those (second), then each chunk from the state before it (third). Leaves are read twice then, else once
//
// Grid: sequences × chunks. Shared memory: 2 × 8 warps × (2 + columns) floats, 16.5 KB at most.
#pragma once
#include "states.h"

namespace oplus::OPLUS_TARGET {
namespace {

// Kernels say one block a multiprocessor: the compiler would else rather spill registers than go below some number.
constexpr int kScanThreads = 256;
constexpr int kScanWarps = kScanThreads / 32;

// Leaves a unit holds in registers: 32 floats of w a thread, so that many loads are on their way at once.
template <typename S>
constexpr int kRun = 32 / S::kCount;

// A job says what the leaves are and what becomes of the prefixes:
//   void enter(sequence)           once, before the others: works out where the sequence lies
//   State<S> first()               what comes before the first leaf
//   State<S> leaf(i, inside)       leaf i; ⊕'s identity where not inside. Called by whole warps
//   void emit(i, inside, state)    the prefix that ends with leaf i. Called by whole warps
//   void last(state)               the prefix of all leaves; called by one unit
// `D` is the number of columns and `count` that of the leaves.
template <typename S, bool kEmit, typename Job>
__device__ void scan_leaves(const Job& job, int64_t begin, int64_t end, State<S>& carry) {
  GPU_SHARED(float, totals, [2][kScanWarps][S::kColumns + 4]);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int warps = static_cast<int>(blockDim.x / 32), unit = static_cast<int>(threadIdx.x) / S::kLanes;
  const int64_t tile = static_cast<int64_t>(warps) * S::kUnits * kRun<S>;
  int half = 0;
  for (int64_t base = begin; base < end; base += tile, half ^= 1) {
    const int64_t from = base + unit * kRun<S>;
    State<S> leaf[kRun<S>], inclusive = State<S>::none();
#pragma unroll
    for (int i = 0; i < kRun<S>; ++i) leaf[i] = job.template leaf<S>(from + i, from + i < end);
#pragma unroll
    for (int i = 0; i < kRun<S>; ++i) inclusive.append(leaf[i]);
#pragma unroll
    for (int step = S::kLanes; step < 32; step *= 2) {
      State<S> left = inclusive.from_below(step);
      if (lane >= step) left.append(inclusive), inclusive = left;
    }
    if (lane / S::kLanes == S::kUnits - 1) {
      float* total = totals[half][warp];
      S::store(total, S::kColumns, inclusive.w);
      if (S::lane() == 0) total[S::kColumns] = inclusive.p.m, total[S::kColumns + 1] = inclusive.p.u;
    }
    State<S> state = State<S>::none();
    if (kEmit && S::kUnits > 1) {
      const State<S> left = inclusive.from_below(S::kLanes);
      if (lane >= S::kLanes) state = left;
    }
    __syncthreads();
    State<S> before = carry;
    for (int w = 0; w < warps; ++w) {
      if (w == warp) before = carry;
      State<S> total;
      total.p = {totals[half][w][S::kColumns], totals[half][w][S::kColumns + 1]};
      S::load(totals[half][w], S::kColumns, total.w);
      carry.append(total);
    }
    if constexpr (kEmit) {
      before.append(state);
#pragma unroll
      for (int i = 0; i < kRun<S>; ++i) {
        before.append(leaf[i]);
        job.template emit<S>(from + i, from + i < end, before);
      }
    }
  }
}

// All of a sequence in one block.
template <typename S, bool kEmit, typename Job>
__global__ void __launch_bounds__(kScanThreads, 1) scan_whole(Job job) {
  job.enter(blockIdx.x);
  State<S> carry = job.template first<S>();
  scan_leaves<S, kEmit>(job, 0, job.count, carry);
  __syncthreads();  // the state may go out to where it came from, which all threads have read by now
  if (threadIdx.x < S::kLanes) job.template last<S>(carry);
}

// The total of one chunk. States of a sequence: what comes before it, then one for each chunk.
template <typename S, typename Job>
__global__ void __launch_bounds__(kScanThreads, 1) scan_totals(Job job, States states, int64_t chunk) {
  job.enter(blockIdx.x);
  const int64_t at = static_cast<int64_t>(blockIdx.x) * (gridDim.y + 1), begin = blockIdx.y * chunk;
  State<S> carry = State<S>::none();
  scan_leaves<S, false>(job, begin, min(job.count, begin + chunk), carry);
  if (threadIdx.x >= S::kLanes) return;
  states.template store<S>(at + blockIdx.y + 1, job.D, carry);
  if (blockIdx.y == 0) states.template store<S>(at, job.D, job.template first<S>());
}

// A chunk, from the state before it.
template <typename S, typename Job>
__global__ void __launch_bounds__(kScanThreads, 1) scan_chunk(Job job, States states, int64_t chunk) {
  job.enter(blockIdx.x);
  const int64_t begin = blockIdx.y * chunk;
  State<S> carry = states.template load<S>(static_cast<int64_t>(blockIdx.x) * (gridDim.y + 1) + blockIdx.y, job.D);
  scan_leaves<S, true>(job, begin, min(job.count, begin + chunk), carry);
}

// The carry between chunks: leaves are states, and each becomes the prefix that ends with it. `Job` takes the last one.
template <typename Job>
struct Carry {
  Job job;
  States states;
  int64_t count;  // states a sequence
  int D;
  int64_t base = 0;
  __device__ void enter(int64_t sequence) {
    base = sequence * count;
    job.enter(sequence);
  }
  template <typename S>
  __device__ State<S> first() const {
    return State<S>::none();
  }
  template <typename S>
  __device__ State<S> leaf(int64_t i, bool inside) const {
    return inside ? states.template load<S>(base + i, D) : State<S>::none();
  }
  template <typename S>
  __device__ void emit(int64_t i, bool inside, const State<S>& state) const {
    if (inside) states.template store<S>(base + i, D, state);
  }
  template <typename S>
  __device__ void last(const State<S>& state) const {
    job.template last<S>(state);
  }
};

// Threads that are worth having for `count` leaves.
template <typename S>
unsigned scan_threads(int64_t count) {
  return static_cast<unsigned>(32 * at_least(1, at_most(kScanWarps, divide_up(count, S::kUnits * kRun<S>))));
}

// How a sequence is cut: 1 chunk where sequences fill the card or are short, else about four blocks a multiprocessor, of a
// tile or more each.
template <typename S>
int64_t chunk_length(Stream stream, int64_t sequences, int64_t count) {
  constexpr int64_t kTile = static_cast<int64_t>(kScanWarps) * S::kUnits * kRun<S>;
  const int64_t processors = gpu::processors(stream);
  if (sequences >= 2 * processors || count <= 2 * kTile) return at_least(1, count);
  const int64_t wanted = at_most(divide_up(4 * processors, sequences), divide_up(count, kTile));
  return divide_up(divide_up(count, wanted), kTile) * kTile;
}

// kEmit: every prefix is wanted; else only the last.
template <typename S, bool kEmit, typename Job>
void run_scan(Stream stream, const Job& job, int64_t sequences) {
  if (sequences == 0) return;
  const auto across = blocks(sequences);
  const int64_t chunk = chunk_length<S>(stream, sequences, job.count), chunks = divide_up(job.count, chunk);
  if (chunks <= 1) return gpu::launch(scan_whole<S, kEmit, Job>, across, scan_threads<S>(job.count), stream, job);
  const int64_t n = sequences * (chunks + 1);
  const States states = states_in(gpu::scratch(stream, states_size(n, job.D)), n);
  const dim3 grid(across, blocks(chunks));
  gpu::launch(scan_totals<S, Job>, grid, kScanThreads, stream, job, states, chunk);
  gpu::launch(scan_whole<S, kEmit, Carry<Job>>, across, scan_threads<S>(chunks + 1), stream,
              Carry<Job>{job, states, chunks + 1, job.D});
  if constexpr (kEmit) gpu::launch(scan_chunk<S, Job>, grid, kScanThreads, stream, job, states, chunk);
}

}  // namespace
}  // namespace oplus::OPLUS_TARGET
