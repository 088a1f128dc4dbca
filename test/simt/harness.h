// Runs operations of the CUDA library through its table and compares them with naive references in plain loops. Works on a
// GPU (built by nvcc) and on the emulator alike.
//
// A reference is a template over the number type: in double it is the truth, in float it is the naive method's own error, and
// an operation may be off by at most twice that (Dao et al. 2022 test so), plus a few units in the last place for the cases
// where the naive sum happens to be exact.
#pragma once
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/backend.h"

constexpr float kInf = std::numeric_limits<float>::infinity();
using Floats = std::vector<float>;

inline int passes = 0, failures = 0;
inline std::string filter;  // only cases whose name starts with it run
inline bool small_only = false;

inline void report(bool ok, const std::string& name, const std::string& what = "") {
  (ok ? passes : failures)++;
  if (!ok) std::printf("FAIL %s %s\n", name.c_str(), what.c_str()), std::fflush(stdout);
}
inline bool wanted(const std::string& name) { return name.compare(0, filter.size(), filter) == 0; }

struct Device {
  const oplus_backend* table = oplus_backend_table(OPLUS_ABI);
  void* stream = nullptr;
  Device() {
    oplus_message message{};
    if (!table || table->open(0, &stream, &message) != OPLUS_OK) std::printf("no device: %s\n", message.text), std::exit(1);
  }
  ~Device() { table->close(stream); }
};
inline Device& device() {
  static Device d;
  return d;
}

// Memory on the device. What nobody has written is NaN, and what lies behind its end is watched: by the emulator, or on a
// GPU by a few more bytes that must stay as they were.
template <typename T>
class Memory {
 public:
  explicit Memory(size_t n) : count_(n) {
    oplus_message message{};
    if (device().table->allocate(device().stream, int64_t((n + kGuard) * sizeof(T)), &data_, &message) != OPLUS_OK)
      std::printf("allocate: %s\n", message.text), std::exit(1);
    if (kGuard) {
      const std::vector<unsigned char> poison((n + kGuard) * sizeof(T), 0xff);
      put(poison.data(), poison.size());
    }
  }
  explicit Memory(const std::vector<T>& v) : Memory(v.size()) { put(v.data(), v.size() * sizeof(T)); }
  Memory(const Memory&) = delete;
  ~Memory() { device().table->release(device().stream, data_); }

  oplus_value value() const { return {0, data_, int64_t(count_ * sizeof(T))}; }
  std::vector<T> read(const std::string& name) const {
    std::vector<T> all(count_ + kGuard);
    oplus_message message{};
    if (device().table->download(device().stream, all.data(), data_, int64_t(all.size() * sizeof(T)), &message) != OPLUS_OK)
      report(false, name, message.text);
    for (size_t i = count_; i < all.size(); ++i) {
      const T poison = all[i];
      const auto* bytes = reinterpret_cast<const unsigned char*>(&poison);
      for (size_t j = 0; j < sizeof(T); ++j)
        if (bytes[j] != 0xff) return report(false, name, "wrote behind the end"), all;
    }
    all.resize(count_);
    return all;
  }

 private:
#if defined(__CUDACC__)
  static constexpr size_t kGuard = 64;
#else
  static constexpr size_t kGuard = 0;
#endif
  void put(const void* from, size_t bytes) {
    oplus_message message{};
    device().table->upload(device().stream, data_, from, int64_t(bytes), &message);
  }
  void* data_ = nullptr;
  size_t count_;
};
using Tensor = Memory<float>;
using Ints = Memory<int32_t>;

// An argument of an operation: a number, memory, or nothing.
struct Argument {
  oplus_value value{};
  Argument(double number) { value.number = number; }
  Argument(int number) { value.number = number; }
  Argument(bool flag) { value.number = flag; }
  Argument(std::nullptr_t) {}
  template <typename T>
  Argument(const Memory<T>& memory) : value(memory.value()) {}
  template <typename T>
  Argument(const Memory<T>* memory) {
    if (memory) value = memory->value();
  }
};

// Runs an operation; its status is returned, and anything but the status expected is a failure.
inline int call(const std::string& name, const char* op, const std::vector<Argument>& arguments, int expected = OPLUS_OK) {
  std::vector<oplus_value> values;
  for (const Argument& a : arguments) values.push_back(a.value);
  for (const oplus_op* const* o = device().table->ops; *o; ++o) {
    if (std::strcmp((*o)->name, op)) continue;
    if ((*o)->arity != int(values.size())) return report(false, name, std::string(op) + " takes (" + (*o)->signature + ")"), -1;
    oplus_message message{};
    int status = (*o)->run(device().stream, values.data(), &message);
    if (status == OPLUS_OK) status = device().table->synchronize(device().stream, &message);
    if (status != expected) report(false, name, std::string(op) + ": " + message.text);
    return status;
  }
  report(false, name, std::string("no operation ") + op);
  return -1;
}

// got against the truth, where the naive method in float is off by `naive − truth`.
inline void compare(const std::string& name, const Floats& got, const std::vector<double>& truth, const Floats& naive) {
  double largest = 0, allowed = 0;
  for (size_t i = 0; i < truth.size(); ++i)
    if (std::isfinite(truth[i])) {
      largest = std::fmax(largest, std::fabs(truth[i]));
      allowed = std::fmax(allowed, std::fabs(naive[i] - truth[i]));
    }
  allowed = 2 * allowed + 8 * std::numeric_limits<float>::epsilon() * largest;
  for (size_t i = 0; i < truth.size(); ++i) {
    const bool ok = std::isfinite(truth[i]) ? std::fabs(got[i] - truth[i]) <= allowed
                    : std::isnan(truth[i])  ? std::isnan(got[i])
                                            : double(got[i]) == truth[i];
    if (ok) continue;
    char text[200];
    std::snprintf(text, sizeof text, "[%zu of %zu] is %.9g, expected %.9g, allowed to be off by %.3g", i, truth.size(),
                  double(got[i]), truth[i], allowed);
    return report(false, name, text);
  }
  report(got.size() == truth.size(), name, "has another size");
}
inline void compare(const std::string& name, const Tensor& got, const std::vector<double>& truth, const Floats& naive) {
  compare(name, got.read(name), truth, naive);
}

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  float normal() { return distribution_(engine_); }
  Floats normals(int64_t n, float factor = 1) {
    Floats v(static_cast<size_t>(n));
    for (float& x : v) x = factor * normal();
    return v;
  }
  int below(int n) { return int(engine_() % unsigned(n)); }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> distribution_;
};

template <typename T>
std::vector<T> as(const Floats& v) {
  return std::vector<T>(v.begin(), v.end());
}
inline std::string label(const char* op, std::initializer_list<int64_t> sizes) {
  std::string s = op;
  for (int64_t n : sizes) s += " " + std::to_string(n);
  return s;
}
