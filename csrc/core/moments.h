// Running mean and sum of squared deviations of one pixel (Welford 1962; Chan, Golub, LeVeque 1979), and
// the narrow form of the latter.
#pragma once

#include "numbers.h"

namespace dp {

// `share` is 1 / n, where n counts this value too.
template <class T>
DP_HD void welford(T& mean, T& m2, T value, T share) {
  const T deviation = value - mean;
  mean += deviation * share;
  m2 += deviation * (value - mean);
}

// Adds a state of `other_count` values; `share` is other_count / (count + other_count).
DP_HD void merge(float& mean, float& m2, float count, float other_mean, float other_m2, float share) {
  const float deviation = other_mean - mean;
  m2 = m2 + other_m2 + deviation * deviation * share * count;
  mean += deviation * share;
}

// MurmurHash3's 32-bit finaliser.
DP_HD uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  return x ^ (x >> 16);
}

// The random bits of stochastic rounding are a hash of example, count and pixel: no generator, and the same
// on every device and in every order of work.
struct Rounding {
  uint32_t key;

  DP_HD Rounding(int64_t example, int32_t count)
      : key(mix(uint32_t(example) ^ mix(uint32_t(uint64_t(example) >> 32) + uint32_t(count)))) {}

  // Up with the probability that makes the expectation exact. An infinity has no low bits, so it stays.
  DP_HD BFloat16 operator()(float x, uint32_t pixel) const {
    const uint32_t noise = mix(key + pixel * 0x9e3779b9u) >> 16;
    return BFloat16{uint16_t((float_to_bits(x) + noise) >> 16)};
  }
};

DP_HD void store_m2(float& at, float value, const Rounding&, uint32_t) { at = value; }
DP_HD void store_m2(BFloat16& at, float value, const Rounding& round, uint32_t pixel) { at = round(value, pixel); }

}  // namespace dp
