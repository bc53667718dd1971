// What one row of logits says about an example whose target is a distribution q over the classes.
//
// The place of the label takes the class k of the largest q, the lowest of several. With q of one class everything
// becomes what softmax.h says of that class.
#pragma once

#include "softmax.h"

namespace dp {

// `before` and `after` are the largest logits of the classes on either side of k. d = z - top <= 0, e = exp(d);
// `rest` is the sum of e over all classes less the 1 of the largest logit, and the other sums are over all classes.
// A masked class of q = 0 adds nothing; q d is summed where q is not 0, so that a masked class of q > 0 makes the loss
// infinite. `distance_squared` is the sum of (p - q)^2, which q = p all but cancels: whoever sums e^2, e q and q^2
// apart does so in double precision.
template <class Math, class F = typename Math::F>
DP_HD StatsOf<F> finish_soft_stats(F z_label, F before, F after, F rest, F e_times_d, F q, F q_times_d, F e_times_q,
                                   F distance_squared) {
  const F zero = Math::all(0.0f), one = Math::all(1.0f), lowest = Math::all(-88.0f);
  const F rival = Math::select(before > after, before, after);
  const F top = Math::select(z_label > rival, z_label, rival);
  const F d_label = Math::select(z_label - top > lowest, z_label - top, lowest);
  const F d_rival = Math::select(rival - top > lowest, rival - top, lowest);
  const F share = one / (one + rest), log_sum = Math::log1p(rest);
  const F entropy = log_sum - e_times_d * share;

  StatsOf<F> s;
  s.value[kLoss] = q * log_sum - q_times_d;
  s.value[kEl2n] = Math::sqrt(Math::select(distance_squared > zero, distance_squared, zero));
  s.value[kEntropy] = Math::select(entropy > zero, entropy, zero);
  s.value[kPLabel] = e_times_q * share;
  s.value[kPMax] = share;
  s.value[kLogitMargin] = z_label - rival;
  s.value[kPMargin] = (Math::exp(d_label) - Math::exp(d_rival)) * share;
  s.value[kCorrect] = Math::select(z_label >= rival, one, zero) * Math::select(z_label > before, one, zero);
  return s;
}

// Whether targets are no probabilities: they do not add up to 1 (beyond what bfloat16 rounds), or one is negative.
DP_HD bool is_no_distribution(float sum, float smallest) { return !(fabsf(sum - 1.0f) <= 0.01f && smallest >= 0.0f); }

}  // namespace dp
