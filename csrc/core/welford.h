// Running mean and sum of squared deviations (Welford 1962).
#pragma once

#include "platform.h"

namespace dp {

// `share` is 1 / n, where n counts this value too.
template <class T>
DP_HD void welford(T& mean, T& m2, T value, T share) {
  const T deviation = value - mean;
  mean += deviation * share;
  m2 += deviation * (value - mean);
}

}  // namespace dp
