// An operation that JavaScript can call. Its C++ signature is its whole interface.
//
// Every file in native/ops is compiled once for each target (CPU: base, avx2, avx512; GPU: cuda) into a namespace of that
// name, and ends with
//
//   static constexpr oplus_op list[] = {op<scan>("scan"), op<scan_backward>("scanBackward")};
//   extern constinit const Ops scan_ops(list);   // <stem of the file>_ops
//
// CMake collects the lists, so nothing else is edited. The lists are constants: a file compiled for AVX-512 must run no
// code when the addon loads on a machine without it.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include "backend.h"

namespace oplus {

// ---- what an operation's parameters may be --------------------------------------------------

// The queue that the work belongs to: a cudaStream_t on the GPU. Takes no argument from JavaScript.
struct Stream {
  void* handle;
};

// Memory that an operation reads (In), writes (Out: all of it) or both (InOut).
template <typename T>
struct View {
  T* data;
  int64_t count;  // elements
  explicit operator bool() const { return data != nullptr; }
  T& operator[](int64_t i) const { return data[i]; }
};
template <typename T>
struct In : View<const T> {};
template <typename T>
struct Out : View<T> {};
template <typename T>
struct InOut : View<T> {};
// The same, but may be left out (null in JavaScript): then `data` is null.
template <typename T>
struct MaybeIn : View<const T> {};
template <typename T>
struct MaybeOut : View<T> {};
template <typename T>
struct MaybeInOut : View<T> {};

// What an operation throws when a size does not fit. Plain text, no allocation, so that no header of the standard
// library is instantiated for a machine that may not have the instructions.
struct Failure {
  int status;
  oplus_message message;
};
template <typename... A>
[[noreturn]] static void fail(int status, const char* format, A... values) {
  Failure failure{status, {}};
  std::snprintf(failure.message.text, sizeof failure.message.text, format, values...);
  throw failure;
}

// The product of sizes; refuses negative ones and products that do not fit.
template <typename... N>
static inline int64_t volume(N... sizes) {
  int64_t product = 1;
  bool fits = true, empty = false;
  auto times = [&](int64_t size) {
    if (size < 0) fail(OPLUS_BAD_SHAPE, "size %lld is negative", static_cast<long long>(size));
    if (size == 0) empty = true;
    else if (product > INT64_MAX / size) fits = false;
    else product *= size;
  };
  (times(sizes), ...);
  if (!fits && !empty) fail(OPLUS_BAD_SHAPE, "%s", "the product of the sizes is too large");
  return empty ? 0 : product;
}

// Every operation checks the buffers it is given against its sizes: expect("s", s, volume(B, T, H)).
template <typename V>
static inline void expect(const char* name, const V& view, int64_t count) {
  if (view.data && view.count < count)
    fail(OPLUS_BAD_SHAPE, "`%s` holds %lld elements, expected %lld", name, static_cast<long long>(view.count),
         static_cast<long long>(count));
}

// ---- how a parameter is read, and its words in the signature --------------------------------

template <typename T>
struct Element;
template <>
struct Element<float> {
  static constexpr char name[] = "f32";
};
template <>
struct Element<int32_t> {
  static constexpr char name[] = "i32";
};
template <>
struct Element<uint16_t> {
  static constexpr char name[] = "u16";
};
template <>
struct Element<uint8_t> {  // bytes whose meaning another argument says
  static constexpr char name[] = "u8";
};

template <size_t N>
struct Text {
  char text[N] = {};
};

template <typename P>
struct Parameter;
template <>
struct Parameter<int64_t> {
  static constexpr char words[] = "int";
  static int64_t read(const oplus_value& v) { return static_cast<int64_t>(v.number); }
};
template <>
struct Parameter<float> {
  static constexpr char words[] = "float";
  static float read(const oplus_value& v) { return static_cast<float>(v.number); }
};
template <>
struct Parameter<bool> {
  static constexpr char words[] = "bool";
  static bool read(const oplus_value& v) { return v.number != 0; }
};

template <size_t A, size_t B>
constexpr auto join_words(const char (&a)[A], const char (&b)[B], char between) {
  Text<A + B> out{};
  for (size_t i = 0; i + 1 < A; ++i) out.text[i] = a[i];
  out.text[A - 1] = between;
  for (size_t i = 0; i < B; ++i) out.text[A + i] = b[i];
  return out;
}
template <typename V, typename T>
struct ViewParameter {
  static V read(const oplus_value& v) {
    V view;
    view.data = static_cast<decltype(view.data)>(v.data);
    view.count = v.bytes / static_cast<int64_t>(sizeof(T));
    return view;
  }
};
#define OPLUS_VIEW_PARAMETER(View, word)                                    \
  template <typename T>                                                     \
  struct Parameter<View<T>> : ViewParameter<View<T>, T> {                   \
    static constexpr auto joined = join_words(word, Element<T>::name, ' '); \
    static constexpr const auto& words = joined.text;                       \
  };
OPLUS_VIEW_PARAMETER(In, "in")
OPLUS_VIEW_PARAMETER(Out, "out")
OPLUS_VIEW_PARAMETER(InOut, "inout")
OPLUS_VIEW_PARAMETER(MaybeIn, "in?")
OPLUS_VIEW_PARAMETER(MaybeOut, "out?")
OPLUS_VIEW_PARAMETER(MaybeInOut, "inout?")
#undef OPLUS_VIEW_PARAMETER

// ---- from a function to an oplus_op ------------------------------------------------------------

template <typename... P>
struct Signature {
  static constexpr size_t length = ((sizeof(Parameter<P>::words) + 1) + ... + 1);
  static constexpr Text<length> make() {
    Text<length> out{};
    size_t at = 0;
    auto put = [&](const char* words) {
      if (at) out.text[at++] = ',', out.text[at++] = ' ';
      while (*words) out.text[at++] = *words++;
    };
    (put(Parameter<P>::words), ...);
    return out;
  }
  static constexpr Text<length> value = make();

  template <auto Function, auto Cost, bool Streamed>
  struct Run {
    template <size_t... I>
    static void call(void* stream, const oplus_value* v, std::index_sequence<I...>) {
      if constexpr (Streamed) Function(Stream{stream}, Parameter<P>::read(v[I])...);
      else Function(Parameter<P>::read(v[I])...);
    }
    static int run(void* stream, const oplus_value* v, oplus_message* error) {
      try {
        call(stream, v, std::index_sequence_for<P...>{});
        return OPLUS_OK;
      } catch (const Failure& failure) {
        *error = failure.message;
        return failure.status;
      } catch (const std::bad_alloc&) {
        std::snprintf(error->text, sizeof error->text, "out of memory");
        return OPLUS_OUT_OF_MEMORY;
      }
    }
    template <size_t... I>
    static double call_cost(const oplus_value* v, std::index_sequence<I...>) {
      return Cost(Parameter<P>::read(v[I])...);
    }
    static double cost(const oplus_value* v) {
      if constexpr (std::is_same_v<decltype(Cost), std::nullptr_t>) {
        double elements = 0;  // every element of every buffer is touched about once
        for (size_t i = 0; i < sizeof...(P); ++i) elements += static_cast<double>(v[i].bytes) / 4;
        return elements;
      } else {
        return call_cost(v, std::index_sequence_for<P...>{});
      }
    }
  };
};

template <auto Function, auto Cost, typename... P>
constexpr oplus_op make_op(const char* name, void (*)(P...)) {
  using S = Signature<P...>;
  using R = typename S::template Run<Function, Cost, false>;
  return {name, S::value.text, static_cast<int32_t>(sizeof...(P)), R::run, R::cost};
}
template <auto Function, auto Cost, typename... P>
constexpr oplus_op make_op(const char* name, void (*)(Stream, P...)) {
  using S = Signature<P...>;
  using R = typename S::template Run<Function, Cost, true>;
  return {name, S::value.text, static_cast<int32_t>(sizeof...(P)), R::run, R::cost};
}

// op<function>("name"), or op<function, cost>("name") where `cost(same parameters, without Stream)` returns a double:
// the multiply-adds of an operation whose work is not in proportion to its bytes.
template <auto Function, auto Cost = nullptr>
constexpr oplus_op op(const char* name) {
  return make_op<Function, Cost>(name, Function);
}

// The operations that one file declares.
struct Ops {
  const oplus_op* first;
  int count;
  template <int N>
  explicit constexpr Ops(const oplus_op (&list)[N]) : first(list), count(N) {}
};

}  // namespace oplus
