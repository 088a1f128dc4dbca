// One step of a decoder layer over a bounded cache (algorithms D.1, D.2): the new token attends to all states and to itself, then
// one state is overwritten in place.
//
// The slots are cut into parts of a fixed size. Each part leaves (m, u, w) for every query head and its powers of two; the
// new entry is a part of its own. The parts are joined by ⊕, which also says what factor turns a part's powers into
// probabilities; from those come the scores and the slot that goes.
#pragma once
#include "ops/cache_sizes.h"

namespace oplus::OPLUS_TARGET {

// What a step works in, in one piece of memory that serves all steps of a call.
struct Room {
  float* powers;    // [H][columns]: 2^(score − m of the part); the new entry's at S
  float* states;    // [parts + 1][H][2 + D]: m, u, w
  float* factors;   // [parts + 1][H]
  float* received;  // [P][columns]
  float* turned;    // [H + G][D]: the query and the new key, turned to their place in the cache
  float* lanes;     // [G][parts][kLanes][D]: keys, turned to theirs

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
    lanes = take(n.G * n.parts() * kLanes * n.D);
  }
  static int64_t floats(const CacheSizes& n) {
    return n.H * n.columns() + (n.parts() + 1) * n.H * (3 + n.D) + n.P * n.columns() +
           (n.H + n.G + n.G * n.parts() * kLanes) * n.D + 6 * 16;
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

  // Keys or values of a key-value head, from a slot on.
  T* rows(T* cache, int64_t b, int64_t g, int64_t slot) const { return cache + ((b * n.G + g) * n.S + slot) * n.D; }

  // A part of the slots of sequence b and key-value head g, of which `held` are filled: all query heads of the group.
  void attend_part(int64_t b, int64_t g, int64_t part, int64_t held, int64_t position, const float* query,
                   const Room& room) const {
    const int64_t first = part * n.keys(), count = at_most(n.keys(), held - first), R = n.H / n.G, columns = n.columns();
    const T* from = rows(keys, b, g, first);
    float* powers = room.powers + g * R * columns + first;
    if (table) {
      float* turned = room.lanes + (g * n.parts() + part) * kLanes * n.D;
      const int32_t* rank = ranks + (b * n.P + g % n.P) * n.S + first;
      for (int64_t j = 0; j < count; j += kLanes) {
        const int64_t now = at_most(kLanes, count - j);
        for (int64_t i = 0; i < now; ++i)
          turn(from + (j + i) * n.D, table + rank[j + i] * n.D, n.D, rules.neighbours, turned + i * n.D);
        score_rows(query + g * R * n.D, R, turned, now, n.D, factor(), powers + j, columns);
      }
    } else {
      score_rows(query + g * R * n.D, R, from, count, n.D, factor(), powers, columns);
    }
    if (position >= rules.reach) hide(b, g, first, count, position, powers);
    float* states = room.states + (part * n.H + g * R) * (2 + n.D);
    for (int64_t r = 0; r < R; ++r) {
      float* state = states + r * (2 + n.D);
      state[1] = soften_part(powers + r * columns, count, state);
    }
    sum_rows(powers, columns, R, rows(values, b, g, first), count, n.D, states + 2, 2 + n.D);
  }

  // Entries that the model's own window has passed are not seen.
  void hide(int64_t b, int64_t g, int64_t first, int64_t count, int64_t position, float* powers) const {
    const int32_t* at = positions + (b * n.P + g % n.P) * n.S + first;
    for (int64_t r = 0; r < n.H / n.G; ++r)
      for (int64_t j = 0; j < count; ++j)
        if (at[j] <= position - rules.reach) powers[r * n.columns() + j] = -__builtin_inff();
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
    const auto part = [&](int64_t i) { attend_part(b, i / parts, i % parts, held, position, turned_query, room); };
    if (alone)
      for (int64_t i = 0; i < n.G * parts; ++i) part(i);
    else parallel_for(static_cast<int>(n.G * parts), part);
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
    const int64_t chooser = b * n.P + p;
    if (ranks) {
      int32_t* rank = ranks + chooser * n.S;
      const int64_t held = at_most(position, n.S);
      const int32_t gone = held < n.S ? static_cast<int32_t>(n.S) : rank[slot];
      for (int64_t j = 0; j < held; ++j) rank[j] -= rank[j] > gone;
      rank[slot] = static_cast<int32_t>(held < n.S ? held : n.S - 1);
    }
    for (int64_t g = n.P == 1 ? 0 : p; g < (n.P == 1 ? n.G : p + 1); ++g) {
      T *to_key = rows(keys, b, g, slot), *to_value = rows(values, b, g, slot);
      put_row(to_key, key + g * n.D, n.D), put_row(to_value, value + g * n.D, n.D);
    }
    positions[chooser * n.S + slot] = static_cast<int32_t>(position);
    scores[chooser * n.S + slot] = fresh;
  }
};

}  // namespace oplus::OPLUS_TARGET
