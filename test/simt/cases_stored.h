// Linear maps and embeddings on stored weights, each kind decoded by its definition, number by number; and where damage begins.
#pragma once
#include "harness.h"

enum { kF32, kF16, kBf16, kQ8_0, kQ4_0, kQ4_K, kQ6_K };
constexpr int64_t kBlock[] = {1, 1, 1, 32, 32, 256, 256}, kBlockBytes[] = {4, 2, 2, 34, 18, 144, 210};

inline double half_value(const uint8_t* p) {
  const int bits = p[0] | p[1] << 8, exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double size = std::ldexp(exponent ? fraction + 1024 : fraction, (exponent ? exponent : 1) - 25);
  return bits >> 15 ? -size : size;
}

// Number j of a block.
inline double stored_value(int kind, const uint8_t* p, int64_t j) {
  if (kind == kF32 || kind == kBf16) {
    const uint32_t bits = kind == kF32 ? p[0] | p[1] << 8 | p[2] << 16 | uint32_t(p[3]) << 24 : uint32_t(p[0] | p[1] << 8) << 16;
    float x;
    return std::memcpy(&x, &bits, 4), x;
  }
  if (kind == kF16) return half_value(p);
  if (kind == kQ8_0) return half_value(p) * int8_t(p[2 + j]);
  if (kind == kQ4_0) return half_value(p) * ((j < 16 ? p[2 + j] & 15 : p[2 + j - 16] >> 4) - 8);
  if (kind == kQ4_K) {
    const uint8_t* scales = p + 4;
    const int64_t part = j / 32;
    const int scale = part < 4 ? scales[part] & 63 : (scales[part + 4] & 15) | scales[part - 4] >> 6 << 4;
    const int least = part < 4 ? scales[part + 4] & 63 : scales[part + 4] >> 4 | scales[part] >> 6 << 4;
    const int byte = p[16 + part / 2 * 32 + j % 32], nibble = part % 2 ? byte >> 4 : byte & 15;
    return half_value(p) * scale * nibble - half_value(p + 2) * least;
  }
  const int64_t half = j / 128, quarter = j / 32 % 4, l = j % 32;
  const int low = p[64 * half + quarter % 2 * 32 + l], high = p[128 + 32 * half + l] >> (2 * quarter) & 3;
  const int bits = (quarter < 2 ? low & 15 : low >> 4) | high << 4;
  return half_value(p + 208) * int8_t(p[192 + 8 * half + quarter * 2 + l / 16]) * (bits - 32);
}

// Random bytes whose scales are about a hundredth, and numbers by themselves about one.
inline std::vector<uint8_t> random_stored(Random& random, int kind, int64_t blocks) {
  std::vector<uint8_t> bytes(size_t(blocks * kBlockBytes[kind]));
  for (uint8_t& b : bytes) b = uint8_t(random.below(256));
  const auto put = [&](size_t at, int bits) { bytes[at] = uint8_t(bits), bytes[at + 1] = uint8_t(bits >> 8); };
  for (int64_t i = 0; i < blocks; ++i) {
    const size_t at = size_t(i * kBlockBytes[kind]);
    const int scale = 0x2000 + random.below(0x400);
    if (kind == kF32) put(at + 2, 0x3f00 + random.below(0x100) + 0x8000 * random.below(2));
    if (kind == kF16) put(at, i % 7 == 0 ? random.below(0x400) : 0x3800 + random.below(0x800) + 0x8000 * random.below(2));
    if (kind == kBf16) put(at, 0x3f00 + random.below(0x100) + 0x8000 * random.below(2));
    if (kind >= kQ8_0) put(at + (kind == kQ6_K ? 208 : 0), scale + 0x8000 * random.below(2));
    if (kind == kQ4_K) put(at + 2, 0x2000 + random.below(0x400));
  }
  return bytes;
}

struct StoredCase {
  int kind;
  int64_t N, C, F;
  int shift = 0;     // bytes by which w starts off 16
  bool odd = false;  // x starts off 16
};
inline void stored_case(const StoredCase& c) {
  const std::string name = label("stored", {c.kind, c.N, c.C, c.F}) + (c.shift ? " shifted" : "") + (c.odd ? " odd x" : "");
  if (!wanted(name)) return;
  Random random(unsigned(c.kind + c.N * 7 + c.C * 31 + c.F));
  std::vector<uint8_t> bytes = random_stored(random, c.kind, c.F * c.C / kBlock[c.kind]);
  std::vector<double> values;
  for (int64_t i = 0; i < c.F * c.C; ++i)
    values.push_back(stored_value(c.kind, &bytes[size_t(i / kBlock[c.kind] * kBlockBytes[c.kind])], i % kBlock[c.kind]));
  bytes.insert(bytes.begin(), size_t(c.shift), 0);
  const int64_t skip = c.odd ? 1 : 0;
  Floats x = random.normals(c.N * c.C + skip);
  const Floats bias = random.normals(c.F);
  const auto reference = [&](auto zero, bool biased) {
    using T = decltype(zero);
    std::vector<T> y;
    for (int64_t n = 0; n < c.N; ++n)
      for (int64_t f = 0; f < c.F; ++f) {
        T sum = 0;
        for (int64_t i = 0; i < c.C; ++i) sum += T(x[size_t(skip + n * c.C + i)]) * T(values[size_t(f * c.C + i)]);
        y.push_back(sum + (biased ? T(bias[size_t(f)]) : T(0)));
      }
    return y;
  };
  const auto n = [](int64_t size) { return Argument(double(size)); };
  const Memory<uint8_t> w(bytes);
  const Tensor tx(x), tb(bias), y(size_t(c.N * c.F)), plain(y.value().bytes / 4);
  const auto behind = [](Argument a, int64_t by) {
    a.value.data = static_cast<char*>(a.value.data) + by, a.value.bytes -= by;
    return a;
  };
  const Argument weights = behind(w, c.shift), in = behind(tx, 4 * skip);
  call(name, "linearStored", {in, weights, tb, y, c.kind, n(c.N), n(c.C), n(c.F)});
  compare(name, y, reference(0.0, true), reference(0.0f, true));
  call(name, "linearStored", {in, weights, nullptr, plain, c.kind, n(c.N), n(c.C), n(c.F)});
  compare(name + " without bias", plain, reference(0.0, false), reference(0.0f, false));

  std::vector<int32_t> ids{0, int32_t(c.F - 1), int32_t(c.F / 2), -1, int32_t(c.F)};
  std::vector<double> rows;
  for (int32_t id : ids)
    for (int64_t i = 0; i < c.C; ++i) rows.push_back(id < 0 || id >= c.F ? NAN : values[size_t(id * c.C + i)]);
  const Ints tids(ids);
  const Tensor embedded(rows.size());
  call(name, "embedStored", {tids, weights, embedded, c.kind, n(int64_t(ids.size())), n(c.F), n(c.C)});
  compare(name + " embedded", embedded, rows, Floats(rows.begin(), rows.end()));

  if (c.N > 1) return;  // what a caller can get wrong is refused, not read past
  call(name, "linearStored", {in, weights, tb, y, c.kind, n(1), n(c.C), n(c.F + 1)}, OPLUS_BAD_SHAPE);
  call(name, "linearStored", {in, behind(weights, 1), tb, y, c.kind, n(1), n(c.C), n(c.F - 1)}, OPLUS_BAD_SHAPE);
  call(name, "embedStored", {tids, weights, embedded, c.kind, n(1), n(c.F + 1), n(c.C)}, OPLUS_BAD_SHAPE);
  call(name, "embedStored", {tids, weights, embedded, 7, n(1), n(c.F), n(c.C)}, OPLUS_BAD_SHAPE);
  if (kBlock[c.kind] > 1) call(name, "linearStored", {in, weights, tb, y, c.kind, n(1), n(c.C - 1), n(1)}, OPLUS_BAD_SHAPE);
}

// Every bit that does not count is set; scales are the largest finite ones, until one of them is an infinity or NaN.
inline void fault_case(int kind, int64_t count, int64_t shift = 0) {
  const std::string name = label("firstFault", {kind, count}) + (shift ? " shifted" : "");
  if (!wanted(name)) return;
  const bool brain = kind == kF32 || kind == kBf16;
  std::vector<int64_t> scales{kind == kF32 ? 2 : kind == kQ6_K ? 208 : 0};
  if (kind == kQ4_K) scales.push_back(2);
  std::vector<uint8_t> sound(size_t(shift + count * kBlockBytes[kind]), 0xff);
  const auto put = [&](std::vector<uint8_t>& bytes, int64_t block, int64_t scale, int bits) {
    const size_t at = size_t(shift + block * kBlockBytes[kind] + scale);
    bytes[at] = uint8_t(bits), bytes[at + 1] = uint8_t(bits >> 8);
  };
  for (int64_t i = 0; i < count; ++i)
    for (int64_t scale : scales) put(sound, i, scale, brain ? 0xff7f : 0x7bff);
  const auto find = [&](const std::vector<uint8_t>& bytes, int64_t right) {
    const Memory<uint8_t> w(bytes);
    const Ints found{size_t(1)};
    Argument in(w);
    in.value.data = static_cast<char*>(in.value.data) + shift, in.value.bytes -= shift;
    call(name, "firstFault", {in, found, kind, double(count * kBlock[kind])});
    const int32_t first = found.read(name)[0];
    report(first == right, name, "is " + std::to_string(first) + ", expected " + std::to_string(right));
  };
  find(sound, -1);
  const int faults[] = {brain ? 0x7f80 : 0x7c00, brain ? 0xff80 : 0xfc00, brain ? 0x7fc1 : 0x7e01};
  for (int64_t block : {int64_t(0), count / 2, count - 1})
    for (int64_t scale : scales) {
      std::vector<uint8_t> bytes = sound;
      put(bytes, block, scale, faults[block % 3]);
      find(bytes, block * kBlock[kind]);
      put(bytes, count - 1, scale, faults[2]);  // a later one does not matter
      find(bytes, block * kBlock[kind]);
    }
  if (shift) return;
  const Memory<uint8_t> w(sound);
  const Ints found{size_t(1)};
  const auto refused = [&](int of, int64_t n) { call(name, "firstFault", {w, found, of, double(n)}, OPLUS_BAD_SHAPE); };
  refused(kind, (count + 1) * kBlock[kind]), refused(7, count), refused(-1, count), refused(kind, -kBlock[kind]);
  if (kBlock[kind] > 1) refused(kind, count * kBlock[kind] - 1);
}

inline void stored_cases() {
  for (int kind = 0; kind < 7; ++kind) {
    const int64_t C = kBlock[kind] == 1 ? 64 : 3 * kBlock[kind];
    for (int64_t N : {1, 2, 8, 9, 70}) stored_case({kind, N, C, 37}), stored_case({kind, N, C, 6, 2});
    stored_case({kind, 1, 4 * 256 + (kBlock[kind] == 1 ? 8 : 256), 5}), stored_case({kind, 3, C, 150}),
        stored_case({kind, 2, C, 3, 0, true});
    stored_case({kind, 20, C, 70, 6, true}), stored_case({kind, 260, C, 260}), stored_case({kind, 10, 2048, 20});
  }
  for (int kind : {kF32, kF16, kBf16})
    for (int64_t C : {1, 3, 7, 36, 130})
      for (int64_t N : {1, 5, 11}) stored_case({kind, N, C, 13}), stored_case({kind, N, C, 9, 2});
  for (int kind = 0; kind < 7; ++kind) {
    for (int64_t count : {1, 3, 8, 9, 70}) fault_case(kind, count), fault_case(kind, count, 2);
    fault_case(kind, kind < kQ8_0 ? 20003 : 300), fault_case(kind, 21, 1);
  }
}
