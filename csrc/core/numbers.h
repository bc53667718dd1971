// The element types that kernels read, and their exact conversion to float.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "platform.h"

namespace dp {

DP_HD float float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

DP_HD uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

DP_HD bool is_finite(float x) { return fabsf(x) <= FLT_MAX; }

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

DP_HD float to_float(float x) { return x; }

DP_HD float to_float(BFloat16 x) { return float_from_bits(uint32_t(x.bits) << 16); }

DP_HD float to_float(Float16 x) {
#ifdef __CUDA_ARCH__
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
#else
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = uint32_t(x.bits & 0x7fffu) << 13;
  // Read as a float, the shifted bits are 2^112 too small; infinity and NaN need all exponent bits.
  const float finite = float_from_bits(magnitude) * 0x1p112f;
  uint32_t bits = float_to_bits(finite);
  if (magnitude >= (0x7c00u << 13)) bits = 0x7f800000u | magnitude;
  return float_from_bits(sign | bits);
#endif
}

// Element of double precision where the input has it, else of single precision.
DP_HD double to_double(double x) { return x; }
template <class T>
DP_HD double to_double(T x) {
  return double(to_float(x));
}
DP_HD float to_float(double x) { return float(x); }

enum class ElementType { kFloat32, kBFloat16, kFloat16, kFloat64 };

// Calls f with a pointer of the element type's C++ type.
template <class F>
auto visit_elements(const void* data, ElementType type, F&& f) {
  switch (type) {
    case ElementType::kBFloat16:
      return f(static_cast<const BFloat16*>(data));
    case ElementType::kFloat16:
      return f(static_cast<const Float16*>(data));
    case ElementType::kFloat64:
      return f(static_cast<const double*>(data));
    default:
      return f(static_cast<const float*>(data));
  }
}

}  // namespace dp
