// SIMD without -march and without -ffast-math: the compiler emits each marked function once per instruction
// set and the loader picks one; wide loops work on explicit vectors of kLanes floats.
#pragma once

#include <cmath>
#include <cstring>

#include "../core/numbers.h"

// The clones are named by instruction set, not by processor: "arch=haswell" would be chosen on a Haswell
// and on no later processor.
#if !defined(__x86_64__) || !defined(__GNUC__) || defined(__clang__) || defined(__SANITIZE_ADDRESS__)
#define DP_CLONES
#elif __GNUC__ >= 12
#define DP_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define DP_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#endif

// Multiversioning does not take templates: one plain function per element type of the logits.
#define DP_FOR_LOGIT_TYPES(APPLY) APPLY(float) APPLY(BFloat16) APPLY(Float16)

// What a marked function calls must become part of it, or it would be compiled for the oldest processor.
#define DP_INLINE inline __attribute__((always_inline))

namespace dp {

constexpr int kLanes = 8;
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));
using Halves = uint16_t __attribute__((vector_size(2 * kLanes)));

template <class To, class From>
DP_INLINE To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

DP_INLINE Floats all(float x) { return Floats{} + x; }
DP_INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }
// x, or the bound where x is below it; NaN stays.
DP_INLINE Floats at_least(Floats bound, Floats x) { return bound > x ? bound : x; }

// A vector in two halves, the halves in two, and so on: few steps that depend on each other.
using Quad = float __attribute__((vector_size(16)));
struct Halved {
  Quad low, high;
};

DP_INLINE float sum(Floats x) {
  const Halved h = same_bits<Halved>(x);
  const Quad q = h.low + h.high;
  return (q[0] + q[2]) + (q[1] + q[3]);
}

DP_INLINE float largest(Floats x) {
  const Halved h = same_bits<Halved>(x);
  const Quad q = h.low > h.high ? h.low : h.high;
  const float even = q[0] > q[2] ? q[0] : q[2], odd = q[1] > q[3] ? q[1] : q[3];
  return even > odd ? even : odd;
}

DP_INLINE Floats load(const float* at) {
  Floats x;
  memcpy(&x, at, sizeof x);
  return x;
}

DP_INLINE Ints load_halves(const void* at) {
  Halves x;
  memcpy(&x, at, sizeof x);
  return __builtin_convertvector(x, Ints);
}

DP_INLINE Floats load(const BFloat16* at) { return same_bits<Floats>(load_halves(at) << 16); }

DP_INLINE Floats load(const Float16* at) {
  const Ints bits = load_halves(at);
  const Ints magnitude = (bits & 0x7fff) << 13;
  const Ints finite = same_bits<Ints>(same_bits<Floats>(magnitude) * 0x1p112f);
  const Ints wide = magnitude >= (0x7c00 << 13) ? 0x7f800000 | magnitude : finite;
  return same_bits<Floats>(wide | (bits & 0x8000) << 16);
}

// exp(x) for kLowest <= x <= 0 to about 1 unit in the last place; 0 from there down to about -87.7, where the
// smallest normal number ends. A polynomial, because std::exp does not vectorise.
constexpr float kLowest = -88.0f;
DP_INLINE Floats exp_nonpositive(Floats x) {
  const Ints whole = __builtin_convertvector(x * 1.44269504088896341f - 0.5f, Ints);  // to nearest: x <= 0
  const Floats n = __builtin_convertvector(whole, Floats);
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  Floats p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * same_bits<Floats>((whole + 127) << 23);
}

// log(1 + x) for x >= 0. The logarithm is that of Cephes; what 1 + x rounds away is added back.
DP_INLINE Floats log1p_nonnegative(Floats x) {
  const Floats u = x + 1.0f;
  // u = m * 2^whole with m between the square roots of 1/2 and 2
  const Ints bits = same_bits<Ints>(u) - 0x3f3504f3;
  const Floats whole = __builtin_convertvector(bits >> 23, Floats);
  const Floats m = same_bits<Floats>((bits & 0x007fffff) + 0x3f3504f3) - 1.0f;
  const Floats square = m * m;
  Floats p = all(7.0376836292e-2f);
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const Floats log_m = m + (p * m * square - whole * 2.12194440e-4f - square * 0.5f);
  return log_m + whole * 0.693359375f + (x - (u - 1.0f)) / u;
}

// The functions of finish_stats, for kLanes rows.
struct LaneMath {
  using F = Floats;
  DP_INLINE static F all(float x) { return dp::all(x); }
  DP_INLINE static F exp(F x) { return exp_nonpositive(x); }
  DP_INLINE static F log1p(F x) { return log1p_nonnegative(x); }
  DP_INLINE static F sqrt(F x) {
    for (int l = 0; l < kLanes; ++l) x[l] = sqrtf(x[l]);
    return x;
  }
  DP_INLINE static F select(Ints condition, F a, F b) { return condition ? a : b; }
  DP_INLINE static F product(F a, F b) { return a * b; }
};

}  // namespace dp
