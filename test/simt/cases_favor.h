// Linear attention (FAVOR+) and its gradient, against favor_reference.h.
#pragma once
#include <functional>

#include "favor_reference.h"

struct FavorTensors {
  Tensor q, k, v, omega, c0, z0, S0;
  Ints lengths;
  explicit FavorTensors(const FavorInput& in)
      : q(in.q), k(in.k), v(in.v), omega(in.omega), c0(in.c0), z0(in.z0), S0(in.S0), lengths(in.lengths) {}
};

inline void add_sizes(std::vector<Argument>& a, const FavorInput& in) {
  const FavorCase& c = in.c;
  for (int64_t size : {c.B, c.T, c.H, c.G, c.D, c.E, c.M}) a.push_back(double(size));
  for (double x : {double(c.feature), double(in.factor), double(in.epsilon), double(c.every)}) a.push_back(x);
  a.push_back(c.causal);
}

inline void favor_case(const FavorCase& c) {
  std::string name = label("linearAttention", {c.B, c.T, c.H, c.G, c.D, c.E, c.M}) + " feature " + std::to_string(c.feature);
  name += std::string(c.causal ? "" : " both") + (c.state ? " state" : "") + (c.lengths ? " lengths" : "") +
          (c.outputs ? "" : " final") + (c.spread > 2 ? " hard" : "");
  if (!wanted(name)) return;
  const FavorInput in(c);
  const auto truth = favor_reference<double>(in);
  const auto naive = favor_reference<float>(in);
  const FavorTensors t(in);
  const Tensor o(truth.o.size()), R(size_t(c.B * c.T * c.H)), cs(truth.c.size()), z(truth.z.size()), S(truth.S.size());
  const Tensor marks(size_t(c.B * c.G * (c.causal ? (c.T + c.every - 1) / c.every : 1) * (1 + c.M * (c.E + 1))));
  const auto maybe = [](bool there, const auto& x) { return Argument(there ? &x : nullptr); };
  const auto forward = [&](const Tensor& from_c, const Tensor& from_z, const Tensor& from_S, bool kept, const Tensor& to_c,
                           const Tensor& to_z, const Tensor& to_S) {
    std::vector<Argument> a{t.q,
                            t.k,
                            t.v,
                            t.omega,
                            maybe(c.state, from_c),
                            maybe(c.state, from_z),
                            maybe(c.state, from_S),
                            maybe(c.lengths, t.lengths),
                            o,
                            maybe(kept, R),
                            maybe(kept, marks),
                            to_c,
                            to_z,
                            to_S};
    add_sizes(a, in);
    call(name, "linearAttention", a);
  };
  const auto same = [&](const std::string& what, const Tensor& to_c, const Tensor& to_z, const Tensor& to_S) {
    compare(name + what + " o", o, truth.o, naive.o);
    compare(name + what + " c", to_c, truth.c, naive.c);
    compare(name + what + " z", to_z, truth.z, naive.z);
    compare(name + what + " S", to_S, truth.S, naive.S);
  };
  if (c.state) {  // the state in place, and nothing kept
    const Tensor ci(in.c0), zi(in.z0), Si(in.S0);
    forward(ci, zi, Si, false, ci, zi, Si);
    same(" in place", ci, zi, Si);
  }
  forward(t.c0, t.z0, t.S0, true, cs, z, S);
  same("", cs, z, S);

  const Tensor g(in.g), dz(in.dz), dS(in.dS), dq(in.q.size()), dk(in.k.size()), dv(in.v.size()), dz0(in.z0.size()),
      dS0(in.S0.size());
  std::vector<Argument> a{t.q,
                          t.k,
                          t.v,
                          t.omega,
                          maybe(c.lengths, t.lengths),
                          o,
                          R,
                          marks,
                          maybe(c.outputs, g),
                          dz,
                          dS,
                          dq,
                          dk,
                          dv,
                          maybe(c.state, dz0),
                          maybe(c.state, dS0)};
  add_sizes(a, in);
  call(name, "linearAttentionBackward", a);
  compare(name + " dq", dq, truth.dq, naive.dq);
  compare(name + " dk", dk, truth.dk, naive.dk);
  compare(name + " dv", dv, truth.dv, naive.dv);
  if (c.state) compare(name + " dz0", dz0, truth.dz0, naive.dz0), compare(name + " dS0", dS0, truth.dS0, naive.dS0);
}

// What comes later changes no bit of what came before, whatever it is.
inline void favor_future_case(int64_t T, int64_t changed, int feature) {
  const std::string name = label("linearAttention future", {T, changed, feature});
  if (!wanted(name)) return;
  FavorCase c{1, T, 2, 1, 8, 5, 70, feature};
  c.epsilon = 0.1;
  FavorInput in(c);
  const auto run = [&] {
    const FavorTensors t(in);
    const Tensor o(size_t(T * c.H * c.E)), cs(1), z(size_t(c.M)), S(size_t(c.M * c.E));
    std::vector<Argument> a{t.q, t.k, t.v, t.omega, nullptr, nullptr, nullptr, nullptr, o, nullptr, nullptr, cs, z, S};
    add_sizes(a, in);
    call(name, "linearAttention", a);
    return o.read(name);
  };
  const Floats before = run();
  const auto holds = [&](const char* what) {
    const Floats after = run();
    const size_t past = size_t(changed * c.H * c.E);
    report(std::memcmp(before.data(), after.data(), past * sizeof(float)) == 0, name,
           std::string(what) + " changes what came before");
  };
  for (int64_t d = 0; d < c.D; ++d) in.k[size_t(changed * c.D + d)] *= 30;
  holds("a large key");
  in.v[size_t(changed * c.E)] = kInf;
  holds("a value that is not finite");
  in.k[size_t(changed * c.D)] = NAN;
  holds("a key that is no number");
}

inline void favor_refused_case(int64_t D, int64_t E, int64_t every) {
  const std::string name = label("linearAttention refused", {D, E, every});
  if (!wanted(name)) return;
  FavorCase c{1, 2, 1, 1, D, E, 4};
  c.every = every;
  const FavorInput in(c);
  const FavorTensors t(in);
  const Tensor o(size_t(2 * E)), cs(1), z(4), S(size_t(4 * E));
  std::vector<Argument> a{t.q, t.k, t.v, t.omega, nullptr, nullptr, nullptr, nullptr, o, nullptr, nullptr, cs, z, S};
  add_sizes(a, in);
  report(call(name, "linearAttention", a, OPLUS_BAD_SHAPE) == OPLUS_BAD_SHAPE, name, "is taken");
}

inline void favor_cases() {
  const auto with = [](FavorCase c, const std::function<void(FavorCase&)>& change) { return change(c), c; };
  favor_case({1, 1, 1, 1, 1, 1, 2}), favor_case({1, 3, 1, 1, 3, 2, 12}), favor_case({1, 70, 2, 1, 5, 7, 33});
  favor_case({1, 40, 1, 1, 8, 4, 64, 0, false});
  // every kind; signed features kept away from a normaliser of nearly nothing
  for (int feature = 1; feature < kFavorKinds; ++feature) {
    FavorCase c{1, 20, 2, 2, 6, 4, 20, feature};
    c.epsilon = feature >= 6 && feature <= 9 ? 2
                : feature == kTrigonometric  ? 0
                                             : 0.01,
    c.spread = feature == 2 || feature == 3 ? 1 : 0.3f;
    favor_case(c), favor_case(with(c, [](FavorCase& x) { x.causal = false, x.T = 9; }));
  }
  // cut into segments; states, lengths, shared keys
  favor_case(with({3, 150, 2, 1, 4, 8, 20, 0, true, true, true, 1e-6}, [](FavorCase& c) { c.every = 64; }));
  favor_case({2, 200, 4, 2, 8, 3, 70, 2, true, true, true, 0.001}),
      favor_case({3, 100, 2, 1, 8, 6, 24, 0, false, false, true, 1e-6});
  favor_case(with({1, 330, 2, 2, 4, 4, 8, 0, true, true}, [](FavorCase& c) { c.every = 192; }));
  favor_case(with({2, 140, 2, 1, 4, 4, 8, 0, true, true, true}, [](FavorCase& c) { c.outputs = false, c.every = 64; }));
  favor_case(with({1, 90, 1, 1, 4, 4, 8, 0, false}, [](FavorCase& c) { c.outputs = false, c.every = 64; }));
  favor_case(with({1, 140, 1, 1, 4, 4, 8, 10, true, true}, [](FavorCase& c) { c.epsilon = 0.01; }));
  favor_case({1, 0, 2, 1, 4, 4, 8, 0, true, true});
  // more heads than it takes to fill the card
  favor_case(with({4, 150, 4, 2, 4, 3, 8, 0, true, true}, [](FavorCase& c) { c.every = 64; }));
  // every width
  favor_case({2, 70, 2, 2, 64, 64, 64}), favor_case({1, 66, 2, 1, 36, 100, 20, 0, true, true}),
      favor_case({1, 10, 1, 1, 128, 128, 130});
  favor_case({1, 20, 1, 1, 70, 33, 20}), favor_case({1, 20, 1, 1, 20, 128, 512});
  // scores of ±80: weights that underflow
  favor_case(with({2, 100, 2, 2, 16, 3, 24, 0, true, false, false, 1e-6}, [](FavorCase& c) { c.spread = 4; }));
  favor_case(with({2, 100, 2, 1, 16, 3, 24, 0, true, true, true, 1e-6}, [](FavorCase& c) { c.spread = 4; }));
  favor_case(with({3, 40, 2, 2, 16, 3, 24, 0, false, false, false, 1e-6}, [](FavorCase& c) { c.spread = 4; }));
  // one feature, far below 0: what is not there must not weigh e^(0 − top)
  favor_case(with({1, 30, 2, 1, 4, 3, 1}, [](FavorCase& c) { c.spread = 90, c.outputs = false; }));
  for (int feature : {kExponential, 2}) favor_future_case(300, 100, feature), favor_future_case(70, 65, feature);
  favor_refused_case(129, 4, 64), favor_refused_case(4, 129, 64), favor_refused_case(4, 4, 63);
}
