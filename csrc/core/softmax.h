// What one row of logits says about its example.
//
// First the extrema of a row, apart for the classes before and after the label, because the lowest class wins a tie for
// the prediction. Then sums over the other classes, relative to the largest logit. Both are associative, so lanes and
// warps combine partial results. The CPU reads a row from memory for each of the two; CUDA kernels read it once, and
// hold it in registers or bring the sums up to a larger logit when one comes.
//
// A class at -inf is masked: its probability is 0, and it adds nothing. Nobody looks for other values that are not
// finite: the extrema pass over NaN, the sums keep it, and inf - inf makes one, so that the loss tells.
#pragma once

#include <cmath>
#include <cstdint>

#include "numbers.h"

namespace dp {

enum Stat { kLoss, kEl2n, kEntropy, kPLabel, kPMax, kLogitMargin, kPMargin, kCorrect, kStats };

// F is float, or a vector of floats that holds one row in each lane. Where the loss is not finite, nothing is known.
template <class F>
struct StatsOf {
  F value[kStats];
};
using SoftmaxStats = StatsOf<float>;

// Sums over classes other than the label; d = z - top <= 0, e = exp(d).
struct OtherClasses {
  float e = 0, e_times_d = 0, e_squared = 0;

  DP_HD void add(float z, float top) {
    float d = z - top;
    d = d < -110.0f ? -110.0f : d;  // keeps 0 log 0 = 0 where d is infinite, and NaN
    const float exponential = expf(d);
    e += exponential;
    e_times_d += exponential * d;
    e_squared += exponential * exponential;
  }

  // Sums relative to `top` become relative to a larger logit: d and so e of every class shrink alike.
  DP_HD void rebase(float top, float new_top) {
    if (new_top == top) return;
    const float shift = top - new_top < -110.0f ? -110.0f : top - new_top;
    const float factor = expf(shift);
    e_times_d = factor * (e_times_d + shift * e);
    e *= factor;
    e_squared *= factor * factor;
  }

  DP_HD void add(const OtherClasses& o) {
    e += o.e;
    e_times_d += o.e_times_d;
    e_squared += o.e_squared;
  }
};

DP_HD float larger(float a, float b) { return a > b ? a : b; }

// The functions that the formula needs, for one row.
struct RowMath {
  using F = float;
  DP_HD static F all(float x) { return x; }
  DP_HD static F exp(F x) { return expf(x); }
  DP_HD static F log1p(F x) { return log1pf(x); }
  DP_HD static F sqrt(F x) { return sqrtf(x); }
  DP_HD static F select(bool condition, F a, F b) { return condition ? a : b; }
  // Rounded at once, never fused with a sum that follows: a record is to hold what softmax_stats would give.
  DP_HD static F product(F a, F b) {
#ifdef __CUDA_ARCH__
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
  }
};

// `before` and `after` are the largest logits of the classes on either side of the label, -inf for none; e,
// e_times_d and e_squared are sums over these classes. The margin of a label whose rivals are all masked is infinite.
template <class Math, class F = typename Math::F>
DP_HD StatsOf<F> finish_stats(F z_label, F before, F after, F e, F e_times_d, F e_squared) {
  const F zero = Math::all(0.0f), one = Math::all(1.0f), lowest = Math::all(-88.0f);
  const F rival = Math::select(before > after, before, after);
  const auto on_top = z_label >= rival;

  const F distance = z_label - rival;
  const F below = Math::select(distance > zero, zero - distance, distance);
  const F d_lower = Math::select(below > lowest, below, lowest);
  const F e_lower = Math::exp(d_lower);  // of the lower of label and rival; of the upper one exp(0) is 1
  const F e_label = Math::select(on_top, one, e_lower), e_rival = Math::select(on_top, e_lower, one);
  const F d_label = Math::select(on_top, zero, d_lower);
  // log1p keeps what is added to the 1 of the largest logit, which log(1 + tiny) would round away.
  const F log_sum = Math::log1p(Math::select(on_top, e, (e - one) + e_label));
  const F share = one / (e_label + e);
  const F entropy = log_sum - (e_times_d + e_label * d_label) * share;

  StatsOf<F> s;
  // A label at +inf would leave no trace but the NaN of inf - inf.
  s.value[kLoss] = Math::select(on_top, zero, zero - distance) + log_sum + (z_label - z_label);
  s.value[kEl2n] = Math::product(Math::sqrt(e_squared + e * e), share);  // 1 - p_y is the others' share
  s.value[kEntropy] = Math::select(entropy > zero, entropy, zero);
  s.value[kPLabel] = Math::product(e_label, share);
  s.value[kPMax] = share;
  s.value[kLogitMargin] = distance;
  s.value[kPMargin] = Math::product(e_label - e_rival, share);
  s.value[kCorrect] = Math::select(on_top, one, zero) * Math::select(z_label > before, one, zero);
  return s;
}

// With a single class there is nothing to have a margin to.
DP_HD SoftmaxStats finish_stats(float z_label, float before, float after, const OtherClasses& o, bool single_class) {
  SoftmaxStats s = finish_stats<RowMath>(z_label, before, after, o.e, o.e_times_d, o.e_squared);
  if (single_class) s.value[kLogitMargin] = s.value[kPMargin] = 0.0f;
  return s;
}

// A row of two classes, of which one logit stands for the second and that of the first is 0.
template <class Math, class F = typename Math::F, class Mask>
DP_HD StatsOf<F> binary_stats(F z, Mask is_one) {
  const F zero = Math::all(0.0f), none = Math::all(-INFINITY), lowest = Math::all(-88.0f);
  const F z_label = Math::select(is_one, z, zero), rival = Math::select(is_one, zero, z);
  const F distance = Math::select(z_label > rival, rival - z_label, zero);  // to the larger of the two
  const F d = Math::select(lowest > distance, lowest, distance);
  const F e = Math::exp(d);
  return finish_stats<Math>(z_label, Math::select(is_one, zero, none), Math::select(is_one, none, z), e, e * d, e * e);
}

// Rows that count for nothing, as where the label says so, and examples without a row: a loss that no other row has.
constexpr float kNoRow = -INFINITY;
DP_HD bool is_no_row(const float* stats) { return stats[kLoss] == kNoRow; }

// What `softmax_stats` wrote for a row.
DP_HD SoftmaxStats given_stats(const float* stats) {
  SoftmaxStats given;
  float probe = stats[kLogitMargin] > -INFINITY ? 0.0f : NAN;
  for (int s = 0; s < kStats; ++s) {
    given.value[s] = stats[s];
    if (s != kLogitMargin) probe += stats[s] - stats[s];  // NaN where it is not finite
  }
  given.value[kLoss] += probe;
  return given;
}

}  // namespace dp
