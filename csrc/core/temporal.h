// What the scores that look at changes over time keep of an example's last presentations: one row of floats
//
//   count, deviations, p_label[window]                   for dynamic uncertainty (He et al. 2024)
//   average, change[window - 1], log_p[classes]          and these as well for TDDS (Zhang et al. 2024)
//
// p_label and change are rings. Each window is summed anew from its ring, in two passes, so that nothing cancels.
#pragma once

#include <cmath>
#include <cstdint>

#include "numbers.h"

namespace dp {

// Less than this, as of a masked class, counts as this, so that neither a change nor the square of its deviation can
// overflow.
constexpr float kLowestLogP = -1e16f;

struct TemporalView {
  float* table;  // [examples, width]
  int64_t examples, width;
  int64_t window;
  float decay;
  bool with_changes;

  static int64_t narrow(int64_t window) { return 2 + window; }
  static int64_t wide(int64_t window, int64_t classes) { return 2 + 2 * window + classes; }

  DP_HD float* row(int64_t example) const { return table + example * width; }
  DP_HD float* log_p(int64_t example) const { return row(example) + 2 + 2 * window; }
};

// The largest logit of a row, and the logarithm of the sum of exponentials relative to it: NaN where a logit is NaN or
// +inf, or all are -inf.
struct Normalizer {
  float top, log_sum;

  DP_HD float log_p(float z) const { return (z - top) - log_sum; }
  DP_HD float clamped_log_p(float z) const { return log_p(z) < kLowestLogP ? kLowestLogP : log_p(z); }
};

// Root of the sum of squared deviations from the mean; exactly 0 where all are equal.
DP_HD float spread(const float* values, int64_t n) {
  float mean = 0.0f, squares = 0.0f;
  for (int64_t i = 1; i < n; ++i) mean += values[i] - values[0];
  mean /= float(n);
  for (int64_t i = 0; i < n; ++i) {
    const float deviation = (values[i] - values[0]) - mean;
    squares += deviation * deviation;
  }
  return sqrtf(squares);
}

// One more presentation. `change` is the sum of p |log p - last log p| over the classes; of the first presentation it
// means nothing.
DP_HD void update_temporal(float* row, const TemporalView& state, float p_label, float change) {
  const int64_t window = state.window, before = int64_t(row[0]);
  const bool complete = before + 1 >= window;
  float *p_labels = row + 2, *average = p_labels + window, *changes = average + 1;
  row[0] += 1.0f;
  p_labels[before % window] = p_label;
  if (complete) row[1] += spread(p_labels, window) / sqrtf(float(window - 1));
  if (!state.with_changes || before == 0) return;
  changes[(before - 1) % (window - 1)] = change;
  if (complete) *average = (1.0f - state.decay) * *average + state.decay * spread(changes, window - 1);
}

}  // namespace dp
