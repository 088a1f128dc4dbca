// Decoder steps over a bounded cache (Oren et al. 2024, "Transformers are multi-state RNNs", section 3; algorithms D.1, D.2): the
// new token attends to all states and to itself, then one state is overwritten in place. The cache is read once a step and
// nothing is allocated, gathered or sorted in it.
//
// The slots are cut into parts of a fixed size. Each part leaves (m, u, w) for every query head and its powers of two; the
// new entry is a part of its own. The parts are joined by ⊕, which also says what factor turns a part's powers into
// probabilities; from those come the scores and the slot that goes.
#include "ops/cache_attend.h"

#include "core/op.h"
#include "core/partition.h"
#include "ops/cache_rows.h"
#include "ops/cache_sizes.h"

namespace oplus::OPLUS_TARGET {
namespace {

// What a step works in, in one piece of memory that serves all steps of a call.
struct Room {
  float* powers;    // [H][columns]: 2^(score − m of the part); the new entry's at S
  float* states;    // [parts + 1][H][2 + D]: m, u, w
  float* factors;   // [parts + 1][H]
  float* received;  // [P][columns]
  float* turned;    // [H + G][D]: the query and the new key, turned to their place in the cache
  float* lanes;     // [parts][kLanes][D]: keys, turned to theirs

  Room(const CacheSizes& n, float* at) {
    const auto take = [&](int64_t floats) {
      float* from = at;
      at += divide_up(floats, 16) * 16;
      return from;
    };
    powers = take(n.H * n.columns());
    states = take((n.parts() + 1) * n.H * (2 + n.D));
    factors = take((n.parts() + 1) * n.H);
    received = take(n.P * n.columns());
    turned = take((n.H + n.G) * n.D);
    lanes = take(n.parts() * kLanes * n.D);
  }
  static int64_t floats(const CacheSizes& n) {
    return n.H * n.columns() + (n.parts() + 1) * n.H * (3 + n.D) + n.P * n.columns() + (n.H + n.G + n.parts() * kLanes) * n.D +
           6 * 16;
  }
};

// A head turned by a row of the table (rope.cpp).
template <typename T>
OPLUS_INLINE void turn(const T* from, const float* row, int64_t D, bool neighbours, float* to) {
  const int64_t half = D / 2, step = neighbours ? 2 : 1, other = neighbours ? 1 : half;
  for (int64_t p = 0; p < half; ++p) {
    const float a = number(from[p * step]), b = number(from[p * step + other]);
    to[p * step] = a * row[2 * p] - b * row[2 * p + 1];
    to[p * step + other] = a * row[2 * p + 1] + b * row[2 * p];
  }
}

template <typename T>
struct Steps {
  CacheSizes n;
  CacheRules rules;
  const float *q, *k, *v, *table;
  T *keys, *values;
  int32_t *positions, *ranks;
  float *scores, *o, *received;

  int64_t row() const { return n.G * n.D; }
  float factor() const { return kLog2E / __builtin_sqrtf(static_cast<float>(n.D)); }

  // Part `part` of the slots of sequence b, of which `held` are filled.
  void attend_part(int64_t b, int64_t part, int64_t held, int64_t position, const float* query, const Room& room) const {
    const int64_t first = part * n.keys(), count = at_most(n.keys(), held - first), R = n.H / n.G, columns = n.columns();
    const T* from_k = keys + (b * n.S + first) * row();
    const T* from_v = values + (b * n.S + first) * row();
    float* turned = room.lanes + part * kLanes * n.D;
    for (int64_t j = 0; j < count; j += kLanes)
      for (int64_t g = 0; g < n.G; ++g) {
        const int64_t now = at_most(kLanes, count - j);
        const T* at = from_k + j * row() + g * n.D;
        prefetch_rows(at + kLanes * row(), row(), at_most(kLanes, count - j - kLanes), n.D);
        if (table) {
          const int32_t* rank = ranks + (b * n.P + g % n.P) * n.S + first + j;
          for (int64_t i = 0; i < now; ++i) turn(at + i * row(), table + rank[i] * n.D, n.D, rules.neighbours, turned + i * n.D);
          score(query + g * R * n.D, turned, n.D, now, room.powers + g * R * columns + first + j);
        } else {
          score(query + g * R * n.D, at, row(), now, room.powers + g * R * columns + first + j);
        }
      }
    if (position >= rules.reach) hide(b, first, count, position, room);
    float* states = room.states + part * n.H * (2 + n.D);
    for (int64_t h = 0; h < n.H; ++h) {
      float* state = states + h * (2 + n.D);
      state[1] = soften_part(room.powers + h * columns + first, count, state);
      for (int64_t d = 0; d < n.D; ++d) state[2 + d] = 0;
    }
    for (int64_t j = 0; j < count; j += kGather)
      for (int64_t g = 0; g < n.G; ++g) {
        const T* at = from_v + j * row() + g * n.D;
        prefetch_rows(at + kLanes * row(), row(), at_most(kGather, count - j - kLanes), n.D);
        for (int64_t h = g * R; h < (g + 1) * R; ++h)
          add_values(room.powers + h * columns + first + j, at, row(), at_most(kGather, count - j), n.D,
                     states + h * (2 + n.D) + 2);
      }
  }

  // Scores of a group's query heads on `count` ≤ kLanes keys `stride` apart.
  template <typename K>
  void score(const float* query, const K* from, int64_t stride, int64_t count, float* to) const {
    const int64_t R = n.H / n.G;
    for (int64_t r = 0; r < R; ++r, query += n.D, to += n.columns()) {
      if (count == kLanes) store(to, dots(query, from, stride, n.D) * factor());
      else
        for (int64_t i = 0; i < count; ++i) to[i] = dot(query, from + i * stride, n.D) * factor();
    }
  }

  // Entries that the model's own window has passed are not seen.
  void hide(int64_t b, int64_t first, int64_t count, int64_t position, const Room& room) const {
    for (int64_t h = 0; h < n.H; ++h) {
      const int32_t* at = positions + (b * n.P + h / (n.H / n.G) % n.P) * n.S + first;
      float* to = room.powers + h * n.columns() + first;
      for (int64_t j = 0; j < count; ++j)
        if (at[j] <= position - rules.reach) to[j] = -__builtin_inff();
    }
  }

  // The new entry, as a part of its own.
  void attend_new(int64_t parts, const float* query, const float* key, const float* value, const Room& room) const {
    const int64_t R = n.H / n.G;
    for (int64_t h = 0; h < n.H; ++h) {
      float* state = room.states + (parts * n.H + h) * (2 + n.D);
      state[0] = dot(query + h * n.D, key + h / R * n.D, n.D) * factor();
      state[1] = 1;
      copy_row(value + h / R * n.D, 1, n.D, state + 2);
      room.powers[h * n.columns() + n.S] = 1;
    }
  }

  // ⊕ of all parts of head h: its output, and each part's factor.
  void join(int64_t parts, int64_t h, const Room& room, float* to) const {
    const float* state = room.states + h * (2 + n.D);
    const int64_t next = n.H * (2 + n.D);
    float m = -__builtin_inff(), u = 0;
    for (int64_t part = 0; part <= parts; ++part) m = state[part * next] > m ? state[part * next] : m;
    for (int64_t part = 0; part <= parts; ++part) {
      float& weight = room.factors[part * n.H + h];
      weight = power_of_two(splat(state[part * next] - m))[0];
      u += weight * state[part * next + 1];
    }
    for (int64_t d = 0; d < n.D; ++d) to[d] = 0;
    for (int64_t part = 0; part <= parts; ++part) {
      float& weight = room.factors[part * n.H + h];
      weight /= u;
      if (weight != 0)
        for (int64_t d = 0; d < n.D; ++d) to[d] += weight * state[part * next + 2 + d];
    }
  }

  // What every entry received, by chooser: the mean over all heads, or the sum over a group's.
  void receive(int64_t parts, int64_t held, const Room& room) const {
    const int64_t columns = n.columns(), heads = n.H / n.P;
    for (int64_t p = 0; p < n.P; ++p) {
      float* to = room.received + p * columns;
      for (int64_t part = 0; part <= parts; ++part) {
        const int64_t first = part < parts ? part * n.keys() : n.S,
                      end = part < parts ? at_most(first + n.keys(), held) : n.S + 1;
        for (int64_t j = first; j < end; j += kLanes) {
          Vec total{};
          for (int64_t h = p * heads; h < (p + 1) * heads; ++h)
            total += load_some(room.powers + h * columns + j, end - j) * room.factors[part * n.H + h];
          store_some(to + j, n.P == 1 ? total / static_cast<float>(n.H) : total, end - j);
        }
      }
    }
  }

  // The slot that goes; S: the new entry itself.
  int64_t victim(int64_t b, int64_t p, int64_t position, float fresh) const {
    const int32_t* at = positions + (b * n.P + p) * n.S;
    const float* score = scores + (b * n.P + p) * n.S;
    const bool by_score = rules.rule == kEvictLeastAttended;
    int64_t found = -1, lowest_position = 0;
    float lowest = 0;
    const auto look = [&](int64_t slot, int64_t where, float value) {
      if (!may_go(where, position, rules.sinks, rules.recent)) return;
      if (found >= 0 && !goes_before(by_score ? value : 0, where, lowest, lowest_position)) return;
      found = slot, lowest = by_score ? value : 0, lowest_position = where;
    };
    for (int64_t j = 0; j < n.S; ++j) look(j, at[j], score[j]);
    look(n.S, position, fresh);
    return found < 0 ? n.S : found;
  }

  void step(int64_t b, int64_t t, int64_t position, const Room& room, bool alone) const {
    const int64_t held = at_most(position, n.S), parts = divide_up(held, n.keys());
    const float* query = q + (b * n.T + t) * n.H * n.D;
    const float *key = k + (b * n.T + t) * row(), *value = v + (b * n.T + t) * row();
    const float* turned_query = query;
    const float* turned_key = key;
    if (table) {
      for (int64_t h = 0; h < n.H; ++h) turn(query + h * n.D, table + held * n.D, n.D, rules.neighbours, room.turned + h * n.D);
      for (int64_t g = 0; g < n.G; ++g)
        turn(key + g * n.D, table + held * n.D, n.D, rules.neighbours, room.turned + (n.H + g) * n.D);
      turned_query = room.turned, turned_key = room.turned + n.H * n.D;
    }
    const auto part = [&](int64_t i) { attend_part(b, i, held, position, turned_query, room); };
    if (alone)
      for (int64_t i = 0; i < parts; ++i) part(i);
    else parallel_for(static_cast<int>(parts), part);
    attend_new(parts, turned_query, turned_key, value, room);
    for (int64_t h = 0; h < n.H; ++h) join(parts, h, room, o + ((b * n.T + t) * n.H + h) * n.D);
    if (rules.rule == kEvictLeastAttended || received) receive(parts, held, room);
    for (int64_t p = 0; p < n.P; ++p) keep(b, p, position, held, key, value, room.received + p * n.columns());
  }

  // Scores move on, and the new entry finds its place.
  void keep(int64_t b, int64_t p, int64_t position, int64_t held, const float* key, const float* value,
            const float* given) const {
    const int64_t chooser = b * n.P + p;
    float fresh = 0;
    if (rules.rule == kEvictLeastAttended) {
      for (int64_t j = 0; j < held; ++j) scores[chooser * n.S + j] = rules.keep * scores[chooser * n.S + j] + given[j];
      fresh = given[n.S];
    }
    if (received) {
      float* to = received + chooser * (n.S + 1);
      for (int64_t j = 0; j <= n.S; ++j) to[j] = j < held || j == n.S ? given[j] : 0;
    }
    if (held == n.S && rules.rule == kEvictOutside) return;
    put(b, p, position, held < n.S ? held : victim(b, p, position, fresh), fresh, key, value);
  }

  // Entry (key, value) of chooser p goes into a slot, whose own entry is gone; S: nothing happens.
  void put(int64_t b, int64_t p, int64_t position, int64_t slot, float fresh, const float* key, const float* value) const {
    if (slot >= n.S) return;
    const int64_t chooser = b * n.P + p, width = row() / n.P, at = (b * n.S + slot) * row() + p * width;
    if (ranks) {
      int32_t* rank = ranks + chooser * n.S;
      const int64_t held = at_most(position, n.S);
      const int32_t gone = held < n.S ? static_cast<int32_t>(n.S) : rank[slot];
      for (int64_t j = 0; j < held; ++j) rank[j] -= rank[j] > gone;
      rank[slot] = static_cast<int32_t>(held < n.S ? held : n.S - 1);
    }
    for (int64_t i = 0; i < width; ++i)
      put_number(keys + at + i, key[p * width + i]), put_number(values + at + i, value[p * width + i]);
    positions[chooser * n.S + slot] = static_cast<int32_t>(position);
    scores[chooser * n.S + slot] = fresh;
  }
};

// f16: k and v as the cache will hold them, so that a token sees what those after it will see.
struct Rounded {
  Scratch memory;
  Rounded(const float* from, int64_t count) : memory(count) {
    for (int64_t i = 0; i < count; ++i) memory.data()[i] = from_half(to_half(from[i]));
  }
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
                          new_keys.memory.data(),
                          new_values.memory.data(),
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
