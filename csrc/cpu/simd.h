// SIMD without -march and without -ffast-math: the compiler emits each marked function once per instruction
// set and the loader picks one; wide loops work on explicit vectors of floats.
#pragma once

#include <cmath>
#include <cstring>

#include "../core/numbers.h"

// The versions are named by instruction set, not by processor: "arch=haswell" would be chosen on a Haswell
// and on no later processor.
#if !defined(__x86_64__) || !defined(__GNUC__) || defined(__clang__) || defined(__SANITIZE_ADDRESS__)
#define DP_CLONES
#elif __GNUC__ >= 12
#define DP_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#define DP_256_BITS "arch=x86-64-v3"
#define DP_512_BITS "arch=x86-64-v4"
#else
#define DP_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#define DP_256_BITS "avx2,fma"
#define DP_512_BITS "avx512f"
#endif

// Multiversioning does not take templates: one plain function per element type of the logits.
#define DP_FOR_LOGIT_TYPES(APPLY) APPLY(float) APPLY(BFloat16) APPLY(Float16)

// What a marked function calls must become part of it, or it would be compiled for the oldest processor.
#define DP_INLINE inline __attribute__((always_inline))
#define DP_INLINE_LAMBDA __attribute__((always_inline))

// The same where vectors are to fill the registers of each instruction set: BODY is a template in the number of lanes.
// Never inlined: which products are fused with sums, compilers choose for each copy anew, and the bits of a row must
// not depend on the rows around it or on the operator.
#define DP_VERSION(SIGNATURE, BODY, ARGUMENTS, LANES) \
  __attribute__((noinline)) SIGNATURE { return BODY<LANES> ARGUMENTS; }
#ifdef DP_512_BITS
#define DP_VERSIONS(SIGNATURE, BODY, ARGUMENTS)                                   \
  __attribute__((target("default"))) DP_VERSION(SIGNATURE, BODY, ARGUMENTS, 4);   \
  __attribute__((target(DP_256_BITS))) DP_VERSION(SIGNATURE, BODY, ARGUMENTS, 8); \
  __attribute__((target(DP_512_BITS))) DP_VERSION(SIGNATURE, BODY, ARGUMENTS, 16);
#elif defined(__SANITIZE_ADDRESS__)
#define DP_VERSIONS(SIGNATURE, BODY, ARGUMENTS) DP_VERSION(SIGNATURE, BODY, ARGUMENTS, 16)  // looks the furthest
#else
#define DP_VERSIONS(SIGNATURE, BODY, ARGUMENTS) DP_VERSION(SIGNATURE, BODY, ARGUMENTS, 4)
#endif

namespace dp {

template <int kLanes>
struct Vectors;
#define DP_DEFINE_VECTORS(LANES)                                        \
  template <>                                                           \
  struct Vectors<LANES> {                                               \
    using Floats = float __attribute__((vector_size(4 * LANES)));       \
    using Ints = int32_t __attribute__((vector_size(4 * LANES)));       \
    using Halves = uint16_t __attribute__((vector_size(2 * LANES)));    \
    using HalfFloats = float __attribute__((vector_size(2 * LANES)));   \
    using HalfDoubles = double __attribute__((vector_size(4 * LANES))); \
  };
DP_DEFINE_VECTORS(4)
DP_DEFINE_VECTORS(8)
DP_DEFINE_VECTORS(16)
#undef DP_DEFINE_VECTORS

// What DP_CLONES marks uses one width in every version.
constexpr int kLanes = 8;
using Floats = Vectors<kLanes>::Floats;

template <class F>
constexpr int lanes_of = sizeof(F) / 4;
template <class F>
using IntsOf = typename Vectors<lanes_of<F>>::Ints;

template <class To, class From>
DP_INLINE To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// Of a condition that is no longer a comparison, `?` would be taken apart into its lanes, where the vector is wider
// than those of the oldest processor.
template <class F>
DP_INLINE F select(IntsOf<F> condition, F a, F b) {
  return F((IntsOf<F>(a) & condition) | (IntsOf<F>(b) & ~condition));
}

template <class F = Floats>
DP_INLINE F all(float x) {
  return F{} + x;
}
// a where it is larger, else b: b as well where one is NaN.
template <class F>
DP_INLINE F larger(F a, F b) {
#ifdef DP_512_BITS
  if constexpr (lanes_of<F> == 16) {  // of a comparison compilers make two instructions here
    F x;
    asm("vmaxps %2, %1, %0" : "=v"(x) : "v"(a), "v"(b));
    return x;
  }
#endif
  return a > b ? a : b;
}
// x, or the bound where x is below it; NaN stays.
template <class F>
DP_INLINE F at_least(F bound, F x) {
  return larger(bound, x);
}

// A vector in two halves, the halves in two, and so on: few steps that depend on each other.
template <class F>
struct Halved {
  typename Vectors<lanes_of<F>>::HalfFloats low, high;
};

template <class F>
DP_INLINE float sum(F x) {
  if constexpr (lanes_of<F> == 4) {
    return (x[0] + x[2]) + (x[1] + x[3]);
  } else {
    const auto h = same_bits<Halved<F>>(x);
    return sum(h.low + h.high);
  }
}

template <class F>
DP_INLINE float largest(F x) {
  if constexpr (lanes_of<F> == 4) {
    const float even = x[0] > x[2] ? x[0] : x[2], odd = x[1] > x[3] ? x[1] : x[3];
    return even > odd ? even : odd;
  } else {
    const auto h = same_bits<Halved<F>>(x);
    return largest(larger(h.low, h.high));
  }
}

template <class F = Floats>
DP_INLINE F load(const float* at) {
  F x;
  memcpy(&x, at, sizeof x);
  return x;
}

template <class F>
DP_INLINE IntsOf<F> load_ints(const int32_t* at) {
  IntsOf<F> x;
  memcpy(&x, at, sizeof x);
  return x;
}

template <class F>
DP_INLINE IntsOf<F> load_halves(const void* at) {
  typename Vectors<lanes_of<F>>::Halves x;
  memcpy(&x, at, sizeof x);
  return __builtin_convertvector(x, IntsOf<F>);
}

template <class F = Floats>
DP_INLINE F load(const BFloat16* at) {
  return same_bits<F>(load_halves<F>(at) << 16);
}

template <class F = Floats>
DP_INLINE F load(const Float16* at) {
  using Ints = IntsOf<F>;
  const Ints bits = load_halves<F>(at);
  const Ints magnitude = (bits & 0x7fff) << 13;
  const Ints finite = same_bits<Ints>(same_bits<F>(magnitude) * 0x1p112f);
  const Ints wide = magnitude >= (0x7c00 << 13) ? 0x7f800000 | magnitude : finite;
  return same_bits<F>(wide | (bits & 0x8000) << 16);
}

template <class F>
DP_INLINE void store(float* at, F x) {
  memcpy(at, &x, sizeof x);
}

// As many doubles as F has floats, in two vectors of the size of F.
template <class F>
struct DoublesOf {
  typename Vectors<lanes_of<F>>::HalfDoubles low, high;

  DP_INLINE static DoublesOf from(F x) {
    const auto h = same_bits<Halved<F>>(x);
    return {__builtin_convertvector(h.low, decltype(low)), __builtin_convertvector(h.high, decltype(high))};
  }
  DP_INLINE void add_product(const DoublesOf& a, const DoublesOf& b) {
    low += a.low * b.low;
    high += a.high * b.high;
  }
  DP_INLINE void add(const DoublesOf& a) {
    low += a.low;
    high += a.high;
  }
  DP_INLINE void add_product(const DoublesOf& a, double b) {
    low += a.low * b;
    high += a.high * b;
  }
  DP_INLINE void multiply(const DoublesOf& a) {
    low *= a.low;
    high *= a.high;
  }
  DP_INLINE double operator[](int lane) const {
    constexpr int kHalf = lanes_of<F> / 2;
    return lane < kHalf ? low[lane] : high[lane - kHalf];
  }
};

// The lanes of a and b in turn, in two vectors.
template <class F>
DP_INLINE void interleave(F& a, F& b) {
  IntsOf<F> low, high;
  for (int l = 0; l < lanes_of<F>; ++l) {
    low[l] = l / 2 + l % 2 * lanes_of<F>;
    high[l] = low[l] + lanes_of<F> / 2;
  }
#ifdef __clang__
  F c, d;
  for (int l = 0; l < lanes_of<F>; ++l) {
    c[l] = low[l] < lanes_of<F> ? a[low[l]] : b[low[l] - lanes_of<F>];
    d[l] = high[l] < lanes_of<F> ? a[high[l]] : b[high[l] - lanes_of<F>];
  }
#else
  const F c = __builtin_shuffle(a, b, low), d = __builtin_shuffle(a, b, high);
#endif
  a = c, b = d;
}

// exp(x) for kLowest <= x <= 0 to about 1 unit in the last place; 0 from there down to about -87.7, where the
// smallest normal number ends. A polynomial, because std::exp does not vectorise.
constexpr float kLowest = -88.0f;
template <class F>
DP_INLINE F exp_nonpositive(F x) {
  // Beside 1.5 * 2^23 a float holds whole numbers alone: the sum rounds, and ends in the bits of the number. With the
  // bias of exponents these are 0 at kLowest.
  constexpr float kWhole = 12582912.0f + 127.0f;
  const F shifted = x * 1.44269504088896341f + kWhole;
  const F n = shifted - kWhole;
  const F r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  F p = all<F>(1.3814540580e-3f);  // of least relative error, 4e-9, between half of -ln 2 and of ln 2
  p = p * r + 8.3687454462e-3f;
  p = p * r + 4.1668388993e-2f;
  p = p * r + 1.6666521132e-1f;
  p = p * r + 4.9999994040e-1f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * same_bits<F>(same_bits<IntsOf<F>>(shifted) << 23);
}

// log(1 + x) for x >= 0. The logarithm is that of Cephes; what 1 + x rounds away is added back.
template <class F>
DP_INLINE F log1p_nonnegative(F x) {
  using Ints = IntsOf<F>;
  const F u = x + 1.0f;
  // u = m * 2^whole with m between the square roots of 1/2 and 2
  const Ints bits = same_bits<Ints>(u) - 0x3f3504f3;
  const F whole = __builtin_convertvector(bits >> 23, F);
  const F m = same_bits<F>((bits & 0x007fffff) + 0x3f3504f3) - 1.0f;
  const F square = m * m;
  F p = all<F>(7.0376836292e-2f);
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const F log_m = m + (p * m * square - whole * 2.12194440e-4f - square * 0.5f);
  return log_m + whole * 0.693359375f + (x - (u - 1.0f)) / u;
}

// The functions of finish_stats, for one row in each lane.
template <class Vector>
struct LaneMath {
  using F = Vector;
  DP_INLINE static F all(float x) { return dp::all<F>(x); }
  DP_INLINE static F exp(F x) { return exp_nonpositive(x); }
  DP_INLINE static F log1p(F x) { return log1p_nonnegative(x); }
  DP_INLINE static F sqrt(F x) {
    float roots[lanes_of<F>];
    store(roots, x);
    for (float& root : roots) root = sqrtf(root);
    return load<F>(roots);
  }
  DP_INLINE static F select(IntsOf<F> condition, F a, F b) { return dp::select(condition, a, b); }
  DP_INLINE static F product(F a, F b) { return a * b; }
};

}  // namespace dp
