// Decoder steps over a bounded cache (Oren et al. 2024, "Transformers are multi-state RNNs", section 3): what cache_steps.h does,
// for every token and sequence. The cache is read once a step, and nothing is allocated, gathered or sorted in it.
#include "ops/cache_steps.h"

namespace oplus::OPLUS_TARGET {
namespace {

// f16: k and v as the cache will hold them, so that a token sees what those after it will see.
class Rounded {
 public:
  Rounded(const float* from, int64_t count) : memory_(count + divide_up(count, 2)) {
    uint8_t* halves = reinterpret_cast<uint8_t*>(memory_.data() + count);
    ToF16::narrow(from, count, halves);
    widen_row<F16>(halves, 0, count, memory_.data());
  }
  const float* data() const { return memory_.data(); }

 private:
  Scratch memory_;  // the numbers, and behind them their halves
};

template <typename T>
void run(const Steps<T>& steps, const int32_t* seen, const int32_t* lengths) {
  const CacheSizes& n = steps.n;
  const auto sequence = [&](int64_t b, const Room& room, bool alone) {
    const int64_t length = lengths ? at_least(0, at_most(n.T, lengths[b])) : n.T;
    for (int64_t t = 0; t < length; ++t) steps.step(b, t, int64_t{seen[b]} + t, room, alone);
    for (int64_t i = length * n.H * n.D; i < n.T * n.H * n.D; ++i) steps.o[b * n.T * n.H * n.D + i] = 0;
  };
  const bool small = n.step_cost() < kInline;
  if (n.B >= threads() || small) {
    parallel_with_scratch(n.B, Room::floats(n), n.step_cost() * static_cast<double>(n.B * n.T) < kInline,
                          [&](float* memory, int64_t b) { sequence(b, Room(n, memory), true); });
    return;
  }
  Scratch memory(Room::floats(n));
  for (int64_t b = 0; b < n.B; ++b) sequence(b, Room(n, memory.data()), false);
}

void check_ranks(const int32_t* ranks, int64_t P, int64_t S, int64_t held) {
  for (int64_t p = 0; p < P; ++p)
    for (int64_t j = 0; j < held; ++j)
      if (ranks[p * S + j] < 0 || ranks[p * S + j] >= S)
        fail(OPLUS_BAD_SHAPE, "rank %d in a cache of %lld", ranks[p * S + j], static_cast<long long>(S));
}

void cache_attend(In<float> q, In<float> k, In<float> v, InOut<uint8_t> keys, InOut<uint8_t> values, InOut<int32_t> positions,
                  InOut<float> scores, MaybeInOut<int32_t> ranks, MaybeIn<float> table, In<int32_t> seen,
                  MaybeIn<int32_t> lengths, Out<float> o, MaybeOut<float> received, int64_t B, int64_t T, int64_t H, int64_t G,
                  int64_t D, int64_t S, int64_t P, int64_t rule, int64_t sinks, int64_t recent, float keep, int64_t reach,
                  int64_t kind, bool neighbours) {
  const CacheSizes n{B, T, H, G, D, S, P};
  const CacheRules rules{rule, sinks, recent, reach, keep, neighbours};
  n.check(kind);
  rules.check(n);
  expect("q", q, volume(B, T, H, D));
  expect("k", k, volume(B, T, G, D));
  expect("v", v, volume(B, T, G, D));
  expect("keys", keys, n.cache_bytes(kind));
  expect("values", values, n.cache_bytes(kind));
  expect("positions", positions, volume(B, P, S));
  expect("scores", scores, volume(B, P, S));
  expect("ranks", ranks, volume(B, P, S));
  expect("table", table, volume(S + 1, D));
  expect("seen", seen, B);
  expect("lengths", lengths, B);
  expect("o", o, volume(B, T, H, D));
  expect("received", received, volume(B, P, S + 1));
  if ((ranks.data == nullptr) != (table.data == nullptr)) fail(OPLUS_BAD_SHAPE, "ranks and a table go together");
  if (table && D % 2) fail(OPLUS_BAD_SHAPE, "heads of %lld numbers, expected an even number", static_cast<long long>(D));
  if (received && T != 1)
    fail(OPLUS_BAD_SHAPE, "%lld tokens, expected 1 where `received` is asked for", static_cast<long long>(T));
  if (rule == kEvictOutside && T != 1)
    fail(OPLUS_BAD_SHAPE, "%lld tokens, expected 1 where the caller chooses what goes", static_cast<long long>(T));
  for (int64_t b = 0; b < B; ++b) {
    const int64_t length = lengths ? at_least(0, at_most(T, lengths[b])) : T;
    if (seen[b] < 0 || seen[b] > INT32_MAX - length) fail(OPLUS_BAD_SHAPE, "%d tokens seen, expected fewer than 2^31", seen[b]);
    if (rule == kNeverEvict && seen[b] + length > S)
      fail(OPLUS_BAD_SHAPE, "%lld tokens in a cache of %lld that never evicts", static_cast<long long>(seen[b] + length),
           static_cast<long long>(S));
    if (ranks) check_ranks(ranks.data + b * P * S, P, S, at_most(seen[b], S));
  }
  if (kind == kCacheF32) {
    const Steps<float> steps{n,
                             rules,
                             q.data,
                             k.data,
                             v.data,
                             table.data,
                             reinterpret_cast<float*>(keys.data),
                             reinterpret_cast<float*>(values.data),
                             positions.data,
                             ranks.data,
                             scores.data,
                             o.data,
                             received.data};
    return run(steps, seen.data, lengths.data);
  }
  const Rounded new_keys(k.data, B * T * G * D), new_values(v.data, B * T * G * D);
  const Steps<Half> steps{n,
                          rules,
                          q.data,
                          new_keys.data(),
                          new_values.data(),
                          table.data,
                          reinterpret_cast<Half*>(keys.data),
                          reinterpret_cast<Half*>(values.data),
                          positions.data,
                          ranks.data,
                          scores.data,
                          o.data,
                          received.data};
  run(steps, seen.data, lengths.data);
}

double cache_attend_cost(In<float>, In<float>, In<float>, InOut<uint8_t>, InOut<uint8_t>, InOut<int32_t>, InOut<float>,
                         MaybeInOut<int32_t>, MaybeIn<float>, In<int32_t>, MaybeIn<int32_t>, Out<float>, MaybeOut<float>,
                         int64_t B, int64_t T, int64_t H, int64_t G, int64_t D, int64_t S, int64_t P, int64_t, int64_t, int64_t,
                         float, int64_t, int64_t, bool) {
  return CacheSizes{B, T, H, G, D, S, P}.step_cost() * static_cast<double>(B) * static_cast<double>(T);
}

void cache_put(In<float> k, In<float> v, InOut<uint8_t> keys, InOut<uint8_t> values, InOut<int32_t> positions,
               InOut<float> scores, MaybeInOut<int32_t> ranks, In<int32_t> slots, In<float> fresh, In<int32_t> seen, int64_t B,
               int64_t G, int64_t D, int64_t S, int64_t P, int64_t kind) {
  const CacheSizes n{B, 1, G, G, D, S, P};
  n.check(kind);
  expect("k", k, volume(B, G, D));
  expect("v", v, volume(B, G, D));
  expect("keys", keys, n.cache_bytes(kind));
  expect("values", values, n.cache_bytes(kind));
  expect("positions", positions, volume(B, P, S));
  expect("scores", scores, volume(B, P, S));
  expect("ranks", ranks, volume(B, P, S));
  expect("slots", slots, volume(B, P));
  expect("fresh", fresh, volume(B, P));
  expect("seen", seen, B);
  for (int64_t i = 0; i < B * P; ++i)
    if (slots[i] < 0 || slots[i] > S) fail(OPLUS_BAD_SHAPE, "slot %d of a cache of %lld", slots[i], static_cast<long long>(S));
  const auto all = [&](auto element) {
    using T = decltype(element);
    const Steps<T> steps{n,
                         {},
                         nullptr,
                         k.data,
                         v.data,
                         nullptr,
                         reinterpret_cast<T*>(keys.data),
                         reinterpret_cast<T*>(values.data),
                         positions.data,
                         ranks.data,
                         scores.data,
                         nullptr,
                         nullptr};
    for (int64_t i = 0; i < B * P; ++i)
      steps.put(i / P, i % P, seen[i / P], slots[i], fresh[i], k.data + i / P * G * D, v.data + i / P * G * D);
  };
  if (kind == kCacheF32) all(float{});
  else all(Half{});
}

constexpr oplus_op list[] = {op<cache_attend, cache_attend_cost>("cacheAttend"), op<cache_put>("cachePut")};

}  // namespace

extern constinit const Ops cache_attend_ops(list);

}  // namespace oplus::OPLUS_TARGET
