// The record of an example: everything that the logit scores need, in one line of 64 bytes.
//
// Counts are held as floats so that the table is one plain tensor; they are exact up to 2^24
// presentations of one example.
#pragma once

#include "softmax.h"
#include "views.h"

namespace dp {

struct alignas(64) Record {
  float count;  // presentations so far
  float loss;   // sums over presentations
  float el2n;
  float entropy;
  float p_label_mean;  // mean and sum of squared deviations (Welford)
  float p_label_m2;
  float p_max;  // sums again
  float logit_margin;
  float p_margin;
  float correct;
  float forgotten;      // times that correct turned into wrong
  float first_correct;  // 1-based presentation of the first correct prediction, 0 for none
  float last_wrong;     // 1-based presentation of the last wrong prediction, 0 for none
  float label;          // the label of all presentations; negative: labels are neither kept nor compared
  float unrivalled;     // presentations without a logit margin that the sum can take in: all other classes were masked
  float recent_loss;    // sum of the losses, in which a presentation weighs `decay` times what the next one weighs
};
static_assert(sizeof(Record) == 64, "one cache line");

// Of an example that has several rows, or targets that are probabilities: labels are then not compared any more.
constexpr int64_t kNoLabel = INT64_MIN;

struct RecordOptions {
  int64_t ignore = kNoLabel;  // the label of rows that do not count
  float right_from = 1.0f;    // the fraction of its rows from which an example is right
  float decay = 0.70710678f;
  int32_t* steps =
      nullptr;  // [examples + 1], at which each example was last seen, and the steps so far; null: not kept
};

// A loss alone comes without a label, and with a largest probability of 0.
DP_HD bool has_other_label(const Record& r, int64_t label) {
  return label != kNoLabel && r.label != float(label) && r.label >= 0.0f && r.p_max > 0.0f;
}

// Why a presentation cannot be added to its record; kSkippedKinds if it can.
DP_HD int fault_of(const Record& r, const SoftmaxStats& s, int64_t label) {
  if (!is_finite(r.loss + s.value[kLoss])) return kNotFinite;
  return has_other_label(r, label) && s.value[kPMax] > 0.0f ? kChangedLabel : kSkippedKinds;
}

DP_HD void update_record(Record& r, const SoftmaxStats& s, int64_t label, const RecordOptions& options) {
  const bool correct = s.value[kCorrect] >= options.right_from;
  const bool was_correct = r.count > 0.0f && r.last_wrong != r.count;
  r.count += 1.0f;
  r.loss += s.value[kLoss];
  r.el2n += s.value[kEl2n];
  r.entropy += s.value[kEntropy];
  const float deviation = s.value[kPLabel] - r.p_label_mean;
  r.p_label_mean += deviation / r.count;
  r.p_label_m2 += deviation * (s.value[kPLabel] - r.p_label_mean);
  if (s.value[kPMax] > 0.0f) {
    if (label == kNoLabel) {
      r.label = -1.0f;
    } else if (r.p_max <= 0.0f && r.label >= 0.0f) {
      r.label = float(label);
    }
  }
  if (r.recent_loss == r.recent_loss) {
    r.recent_loss += (1.0f - options.decay) * (s.value[kLoss] - r.recent_loss);
  } else {  // what was recorded before is to be forgotten: the mean, which is this by the weight of all, starts anew
    r.recent_loss = s.value[kLoss] * (1.0f - powf(options.decay, r.count));
  }
  const float margins_before = r.logit_margin;
  r.p_max += s.value[kPMax];
  r.logit_margin += s.value[kLogitMargin];
  r.p_margin += s.value[kPMargin];
  r.correct += s.value[kCorrect];
  if (!is_finite(r.logit_margin)) {
    r.logit_margin = margins_before;
    r.unrivalled += 1.0f;
  }
  if (was_correct && !correct) r.forgotten += 1.0f;
  if (correct && r.first_correct == 0.0f) r.first_correct = r.count;
  if (!correct) r.last_wrong = r.count;
}

}  // namespace dp
