// Attention over a bounded cache, one call after another, against the definition: what it gives, and after every call which
// positions are left, in which slot, with which score, rank, key and value.
#pragma once
#include "cache_reference.h"

inline void cache_case(const CacheSizes& sizes, const CacheOptions& options = {}) {
  const CacheCase c{sizes, options};
  std::string name = label("cacheAttend", {c.B, c.H, c.G, c.D, c.S});
  const auto also = [&](const char* word, int64_t n) { name += " " + std::string(word) + std::to_string(n); };
  also("rule", c.rule);
  if (c.T > 1) also("T", c.T);
  if (c.P > 1) also("P", c.P);
  if (c.kind) name += " half";
  if (c.sinks) also("sinks", c.sinks);
  if (c.recent) also("recent", c.recent);
  if (c.reach < INT32_MAX) also("reach", c.reach);
  if (c.rotation) name += c.rotation == kByHalves ? " halves" : " neighbours";
  if (c.ragged) name += " ragged";
  if (c.spread != 1) also("spread", int64_t(c.spread));
  if (c.alike) name += " alike";
  if (!wanted(name)) return;

  Random random(unsigned(c.S * 31 + c.D * 7 + c.H + c.calls));
  Floats table;
  for (int64_t rank = 0; rank <= c.S; ++rank)
    for (int64_t p = 0; p < c.D / 2; ++p) {
      const double angle = double(rank) * std::pow(100.0, -2.0 * double(p) / double(c.D));
      table.push_back(float(std::cos(angle))), table.push_back(float(std::sin(angle)));
    }
  CacheState<double> truth(c);
  CacheState<float> naive(c);
  const size_t slots = truth.positions.size(), width = c.kind ? 2 : 4;
  const Memory<uint8_t> keys(truth.keys.size() * width), values(truth.keys.size() * width);
  const Ints positions(slots), ranks(slots);
  const Tensor scores(slots), turns(table);
  const bool rotates = c.rotation != kPlain, receives = c.rule == 3 || (c.T == 1 && c.S % 3);
  const Argument maybe_ranks(rotates ? &ranks : nullptr);
  const int before = failures;
  std::vector<int32_t> seen(size_t(c.B), 0);
  const auto n = [](int64_t size) { return Argument(double(size)); };
  for (int64_t i = 0; i < c.calls && failures == before; ++i) {
    const std::string step = name + " call " + std::to_string(i);
    const Floats q = random.normals(c.B * c.T * c.H * c.D, c.alike && i + 1 >= c.alike ? 0 : c.spread);
    const Floats k = random.normals(c.B * c.T * c.G * c.D), v = random.normals(c.B * c.T * c.G * c.D);
    std::vector<int32_t> lengths;
    for (int64_t b = 0; b < c.B; ++b) lengths.push_back(c.ragged ? random.below(int(c.T) + 1) : int32_t(c.T));
    const Tensor tq(q), tk(k), tv(v), o(q.size()), received(truth.received.size());
    const Ints tseen(seen), tlengths(lengths);
    call(step, "cacheAttend",
         {tq,
          tk,
          tv,
          keys,
          values,
          positions,
          scores,
          maybe_ranks,
          Argument(rotates ? &turns : nullptr),
          tseen,
          Argument(c.ragged ? &tlengths : nullptr),
          o,
          Argument(receives ? &received : nullptr),
          n(c.B),
          n(c.T),
          n(c.H),
          n(c.G),
          n(c.D),
          n(c.S),
          n(c.P),
          c.rule,
          n(c.sinks),
          n(c.recent),
          double(c.keep),
          n(c.reach),
          c.kind,
          c.rotation == kNeighbours});
    truth.o.assign(q.size(), 0), naive.o.assign(q.size(), 0);
    truth.received.assign(truth.received.size(), 0), naive.received.assign(truth.received.size(), 0);
    std::vector<int32_t> slot;
    for (int64_t b = 0; b < c.B; ++b) {
      std::vector<int64_t> victims(size_t(c.P), c.S);
      for (int64_t t = 0; t < lengths[size_t(b)]; ++t) {
        cache_token(c, truth, b, t, seen[size_t(b)] + t, q, k, v, table, true, victims);
        cache_token(c, naive, b, t, seen[size_t(b)] + t, q, k, v, table, false, victims);
      }
      slot.insert(slot.end(), victims.begin(), victims.end());
    }
    compare(step + " o", o, truth.o, naive.o);
    if (receives) compare(step + " received", received, truth.received, naive.received);
    if (c.rule == 3) {
      Floats fresh;
      const Floats got = received.read(step);
      for (int64_t at = 0; at < c.B * c.P; ++at) fresh.push_back(got[size_t(at * (c.S + 1) + c.S)]);
      const Ints tslot(slot);
      const Tensor tfresh(fresh);
      call(step, "cachePut",
           {tk, tv, keys, values, positions, scores, maybe_ranks, tslot, tfresh, tseen, n(c.B), n(c.G), n(c.D), n(c.S), n(c.P),
            c.kind});
    }
    for (int64_t b = 0; b < c.B; ++b) seen[size_t(b)] += lengths[size_t(b)];

    // What the cache holds now, in the slots that are filled.
    const auto got_positions = positions.read(step), got_ranks = ranks.read(step);
    const auto got_keys = keys.read(step), got_values = values.read(step);
    Floats got_scores = scores.read(step);
    for (int64_t b = 0; b < c.B; ++b)
      for (int64_t e = 0; e < c.S; ++e) {
        const bool filled = e < seen[size_t(b)];
        for (int64_t p = 0; p < c.P; ++p) {
          const size_t at = size_t((b * c.P + p) * c.S + e);
          if (!filled) got_scores[at] = 0;
          else if (got_positions[at] != truth.positions[at] || (rotates && got_ranks[at] != truth.ranks[at]))
            return report(false, step,
                          "slot " + std::to_string(at) + " holds position " + std::to_string(got_positions[at]) + " of rank " +
                              std::to_string(got_ranks[at]) + ", expected " + std::to_string(truth.positions[at]) + " of rank " +
                              std::to_string(truth.ranks[at]));
        }
        for (int64_t d = 0; d < c.G * c.D && filled; ++d) {
          const size_t at = size_t(((b * c.G + d / c.D) * c.S + e) * c.D + d % c.D);
          if (read_kept(c.kind, got_keys, at) != truth.keys[at] || read_kept(c.kind, got_values, at) != truth.values[at])
            return report(false, step, "differs in the key or value of slot " + std::to_string(e));
        }
      }
    compare(step + " scores", got_scores, truth.scores, naive.scores);
  }
  const bool many = !c.ragged && c.rule != 0 && c.calls * c.T >= c.S + 5;
  report(!many || failures > before || truth.evicted > 0, name, "evicts nothing but new entries");
}

// Scores that are not numbers: whatever goes, no entry is lost or doubled and nothing is touched outside.
inline void cache_nan_case(int64_t P) {
  const std::string name = "cacheAttend of NaN, P" + std::to_string(P);
  if (!wanted(name)) return;
  const int64_t H = 4, G = 2, D = 16, S = 9, T = 30;
  Random random(5);
  Floats q = random.normals(T * H * D);
  for (int64_t i = 12 * H * D; i < T * H * D; i += 3) q[size_t(i)] = NAN;
  const Tensor tq(q), tk(random.normals(T * G * D)), tv(random.normals(T * G * D)), o(q.size()), scores(size_t(P * S));
  const Memory<uint8_t> keys(size_t(S * G * D * 4)), values(size_t(S * G * D * 4));
  const Ints positions(size_t(P * S)), seen(std::vector<int32_t>{0});
  call(name, "cacheAttend",
       {tq,        tk,        tv,        keys,      values,    positions, scores, nullptr, nullptr, seen, nullptr, o, nullptr, 1,
        double(T), double(H), double(G), double(D), double(S), double(P), 2,      2,       3,       1,    1e9,     0, false});
  const auto got = positions.read(name);
  for (int64_t p = 0; p < P; ++p) {
    std::vector<int32_t> held(got.begin() + p * S, got.begin() + (p + 1) * S);
    std::sort(held.begin(), held.end());
    const bool distinct = std::adjacent_find(held.begin(), held.end()) == held.end();
    report(distinct && held[0] == 0 && held[1] == 1 && held[size_t(S) - 3] == T - 3 && held.back() == T - 1, name,
           "sinks and recent entries are not all there");
  }
  const Floats row = o.read(name);
  report(std::isnan(row.back()) && !std::isnan(row[size_t(12 * H * D) - 1]), name,
         "reaches tokens before it, or not those after");
}

// What a caller can get wrong is refused, before anything runs.
inline void cache_refused_case() {
  const std::string name = "cacheAttend refused";
  if (!wanted(name)) return;
  const Tensor q(Floats(32, 1.f)), k(Floats(16, 1.f)), o(32), scores(8), table(80), received(9);
  const Memory<uint8_t> keys(512), values(512);
  const Ints positions(8), ranks(8), seen(std::vector<int32_t>{0});
  struct Wrong {
    double T = 1, H = 4, G = 2, D = 8, S = 8, P = 1, rule = 2, sinks = 0, recent = 0, reach = 9, kind = 0;
    bool ranked = false, turned = false, receives = false;
  };
  const auto refused = [&](const Wrong& w, int status = OPLUS_BAD_SHAPE) {
    call(name, "cacheAttend",
         {q,
          k,
          k,
          keys,
          values,
          positions,
          scores,
          Argument(w.ranked ? &ranks : nullptr),
          Argument(w.turned ? &table : nullptr),
          seen,
          nullptr,
          o,
          Argument(w.receives ? &received : nullptr),
          1,
          w.T,
          w.H,
          w.G,
          w.D,
          w.S,
          w.P,
          w.rule,
          w.sinks,
          w.recent,
          1,
          w.reach,
          w.kind,
          false},
         status);
  };
  refused({}, OPLUS_OK);
  refused({.T = 2}), refused({.H = 3}), refused({.D = 16}), refused({.S = 9}), refused({.S = 0}), refused({.P = 2}),
      refused({.P = 3});
  refused({.rule = 4}), refused({.rule = -1}), refused({.sinks = 4, .recent = 5}), refused({.sinks = -1}), refused({.reach = 0});
  refused({.kind = 2}), refused({.T = 0, .receives = true}), refused({.T = 0, .rule = 3}), refused({.ranked = true});
  refused({.turned = true}), refused({.H = 2, .G = 2, .D = 7, .ranked = true, .turned = true}), refused({.D = 512});
  report(true, name);
}

inline void cache_cases() {
  // Every way that rows lie in a unit, for one head a group, a few and many.
  for (int kind : {0, 1})
    for (int64_t D : {8, 20, 64, 128})
      for (int64_t share : {1, 3, 8}) cache_case({1, 2 * share, 2, D, 13, 22}, {.kind = kind, .rotation = kByHalves});
  for (int kind : {0, 1}) {
    cache_case({1, 3, 1, 256, 9, 14}, {.kind = kind, .rotation = kNeighbours});
    cache_case({1, 2, 2, 96, 9, 14}, {.kind = kind, .rotation = kNeighbours});
    cache_case({2, 4, 2, 20, 12, 20}, {.P = 2, .kind = kind, .rotation = kNeighbours});
    cache_case({2, 4, 2, 64, 12, 20}, {.P = 2, .kind = kind, .rotation = kNeighbours});
    cache_case({1, 4, 2, 7, 10, 16}, {.kind = kind});
    cache_case({1, 2, 1, 1, 10, 16}, {.kind = kind});
  }
  // One slot; more heads a group than a block takes; more entries than one chunk, and chunks that only some tokens reach.
  cache_case({2, 2, 1, 8, 1, 6}), cache_case({2, 2, 2, 64, 1, 6}, {.rule = 1, .T = 5, .P = 2, .rotation = kByHalves});
  cache_case({1, 19, 1, 32, 40, 60}), cache_case({2, 20, 2, 16, 33, 45}, {.P = 2, .kind = 1, .rotation = kByHalves});
  cache_case({1, 2, 1, 64, 150, 170}), cache_case({1, 1, 1, 128, 70, 90}, {.P = 1, .kind = 1}),
      cache_case({1, 4, 4, 20, 130, 140}, {.P = 4});
  cache_case({1, 1, 1, 8, 600, 125}, {.T = 5, .kind = 1});
  // Rules: what is protected, what decays, how far a token sees.
  for (int rule : {0, 1, 2, 3})
    for (int64_t P : {1, 2}) {
      const int64_t calls = rule == 0 ? 11 : 35;
      cache_case({1, 4, 2, 20, 11, calls}, {.rule = rule, .P = P});
      if (rule == 0) continue;
      cache_case({1, 4, 2, 64, 12, calls},
                 {.rule = rule, .P = P, .kind = 1, .sinks = 2, .recent = 3, .keep = 0.9f, .rotation = kByHalves});
      if (rule != 3) cache_case({3, 4, 2, 20, 12, 12}, {.rule = rule, .T = 5, .P = P, .sinks = 1, .recent = 1, .ragged = true});
    }
  cache_case({1, 4, 2, 64, 12, 35}, {.P = 2, .sinks = 4, .recent = 8, .keep = 1}),
      cache_case({1, 4, 2, 64, 12, 35}, {.sinks = 3, .keep = 0});
  cache_case({1, 4, 2, 64, 24, 40}, {.rule = 1, .reach = 5}),
      cache_case({1, 2, 2, 20, 40, 60}, {.P = 2, .recent = 4, .keep = 1, .reach = 11});
  cache_case({1, 4, 2, 64, 70, 90}, {.rule = 1, .reach = 1}),
      cache_case({2, 4, 1, 20, 20, 12}, {.T = 5, .reach = 7, .ragged = true});
  cache_case({3, 4, 2, 64, 14, 12},
             {.rule = 2, .T = 5, .kind = 1, .sinks = 1, .recent = 2, .rotation = kByHalves, .ragged = true});
  cache_case({3, 4, 2, 64, 14, 40}, {.rule = 3, .P = 2, .ragged = true});
  cache_case({2, 4, 4, 16, 270, 56}, {.T = 5, .kind = 1, .recent = 1, .keep = 1});
  // Scores of ±80, where all that there is goes to one entry; and entries that all got the same, so that the oldest goes.
  cache_case({1, 4, 2, 64, 20, 40}, {.spread = 80}), cache_case({1, 2, 1, 8, 70, 90}, {.rule = 1, .kind = 1, .spread = 80});
  cache_case({1, 4, 2, 20, 16, 40}, {.keep = 0, .alike = 24}),
      cache_case({2, 4, 2, 64, 40, 60}, {.P = 2, .keep = 0, .alike = 50});
  cache_nan_case(1), cache_nan_case(2), cache_refused_case();
}
