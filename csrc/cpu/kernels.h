// CPU loops over a range of rows. Callers split rows among threads; every row is independent.
#pragma once

#include "../core/record.h"
#include "../core/soft.h"
#include "../core/temporal.h"
#include "../core/views.h"
#include "duplicates.h"

namespace dp::cpu {

// Adds a thread's own counts to those of all threads.
inline void add_skipped(int64_t* skipped, const int64_t (&local)[kSkippedKinds]) {
  for (int kind = 0; kind < kSkippedKinds; ++kind) {
    if (local[kind] != 0) __atomic_fetch_add(&skipped[kind], local[kind], __ATOMIC_RELAXED);
  }
}

// out: [rows, kStats]; rows with a bad label or a loss that is not finite become NaN, those of the label `ignore`
// kNoRow with zeros.
void softmax_stats(const LogitsView& logits, const int64_t* labels, int64_t ignore, float* out, int64_t begin,
                   int64_t end);

// The same for targets [rows, classes] that are probabilities, in any layout. Adds to `unnormalised` (null: not asked)
// how many rows are none.
void soft_stats(const LogitsView& logits, const LogitsView& targets, float* out, int64_t* unnormalised, int64_t begin,
                int64_t end);

// The same for rows of two classes, of one logit each: logits.classes is 1.
void sigmoid_stats(const LogitsView& logits, const BinaryLabels& labels, float* out, int64_t begin, int64_t end);

// Of examples begin to end: out [examples, kStats], the weighted mean of their rows, kNoRow where no row counts; and
// out_labels [examples], the label of those with one row, else kNoLabel. Adds to skipped[kBadIndex] owners that do not
// exist, when `begin` is 0.
void reduce_rows(const RowsView& rows, float* out, int64_t* out_labels, int64_t* skipped, int64_t begin, int64_t end);

// Adds to `skipped` what could not be recorded; rows of the label options.ignore are passed over. Logits are [B, C]
// with adjacent classes. steps[examples] is already that of this step.
void record_stats(Record* table, int64_t examples, const int64_t* index, const LogitsView& logits,
                  const int64_t* labels, const RecordOptions& options, const DuplicateChains& chains, int64_t* skipped,
                  int64_t begin, int64_t end);

// The same from what softmax_stats gave for the rows, of `classes` classes. Rows of index kPadding are passed over, and
// those that are none (kNoRow). A label may be kNoLabel.
void record_given_stats(Record* table, int64_t examples, const int64_t* index, const float* stats,
                        const int64_t* labels, int64_t classes, const RecordOptions& options,
                        const DuplicateChains& chains, int64_t* skipped, int64_t begin, int64_t end);

// `records` [state.examples] are those that record_stats has recorded the same rows in, and tells of which a label has
// changed (null: not known). Rows of the label `ignore` are passed over.
void record_temporal(const TemporalView& state, const int64_t* index, const LogitsView& logits, const int64_t* labels,
                     int64_t ignore, const Record* records, const DuplicateChains& chains, int64_t* skipped,
                     int64_t begin, int64_t end);

// `scale` [rows] multiplies each row (null: 1); a row of scale 0 carries no gradient and is passed over.
// `subset` [state.pixels] names the pixels to read (null: all).
void record_gradients(const MomentsView& state, const int64_t* index, const GradientsView& gradients,
                      const float* scale, const int64_t* subset, const DuplicateChains& chains, int64_t* skipped,
                      int64_t begin, int64_t end);

// Adds `other` to `state`, for a range of examples.
void merge_moments(const MomentsView& state, const MomentsView& other, int64_t begin, int64_t end);

// `checkpoints` gradients of the same rows, `checkpoint_stride` elements apart. out: [rows].
void gradient_variance(const GradientsView& gradients, int64_t checkpoints, int64_t checkpoint_stride, bool take_root,
                       float* out, int64_t begin, int64_t end);

}  // namespace dp::cpu
