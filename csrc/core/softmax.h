// What one row of logits says about its example.
//
// A row is read twice. First its extrema, apart for the classes before and after the label, because
// the lowest class wins a tie for the prediction. Then sums over the other classes, relative to the
// largest logit. Both are associative, so lanes and warps combine partial results.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "numbers.h"

namespace dp {

enum Stat { kLoss, kEl2n, kEntropy, kPLabel, kPMax, kLogitMargin, kPMargin, kCorrect, kStats };

struct SoftmaxStats {
  float value[kStats];
};

// Sums over classes other than the label; d = z - top <= 0, e = exp(d).
struct OtherClasses {
  float e = 0, e_times_d = 0, e_squared = 0;

  DP_HD void add(float z, float top) {
    float d = z - top;
    d = d < -110.0f ? -110.0f : d;  // keeps 0 log 0 = 0 where d would overflow
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

// A difference of finite logits can overflow; two opposite infinities would make a sum NaN.
DP_HD float within_range(float x) { return x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x; }

// z - z is NaN exactly where z is infinite or NaN; a sum of it stays NaN.
DP_HD float finite_probe(float z) { return z - z; }

// `before` and `after` are the largest logits of the classes on either side of the label, -inf for none.
DP_HD SoftmaxStats finish_stats(float z_label, float before, float after, const OtherClasses& others) {
  const float rival = larger(before, after);
  const float top = larger(z_label, rival);
  const bool label_on_top = z_label == top;
  const bool alone = rival == -INFINITY;  // a single class has no rival: its margins are 0

  const float d_label = larger(z_label - top, -110.0f);
  const float e_label = label_on_top ? 1.0f : expf(d_label);
  const float e_rival = rival == top ? 1.0f : expf(larger(rival - top, -110.0f));
  const float sum = e_label + others.e;
  const float share = 1.0f / sum;
  // log1p keeps small losses of confident examples, which log(1 + tiny) would round away.
  const float log_sum = label_on_top ? log1pf(others.e) : logf(sum);
  const float entropy = log_sum - (others.e_times_d + e_label * d_label) * share;

  SoftmaxStats s;
  s.value[kLoss] = within_range(top - z_label) + log_sum;
  s.value[kEl2n] = sqrtf(others.e_squared + others.e * others.e) * share;  // 1 - p_y is the others' share
  s.value[kEntropy] = larger(entropy, 0.0f);
  s.value[kPLabel] = e_label * share;
  s.value[kPMax] = share;
  s.value[kLogitMargin] = alone ? 0.0f : within_range(z_label - rival);
  s.value[kPMargin] = alone ? 0.0f : (e_label - e_rival) * share;
  s.value[kCorrect] = z_label > before && z_label >= after ? 1.0f : 0.0f;
  return s;
}

}  // namespace dp
