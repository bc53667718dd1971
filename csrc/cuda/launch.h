// What the CUDA half offers to the rest: launchers over raw pointers and a stream. They return a
// cudaError_t as int (0 is success), launch nothing for an empty batch, and never synchronise.
#pragma once

#include "../core/record.h"
#include "../core/soft.h"
#include "../core/temporal.h"
#include "../core/views.h"

namespace dp::cuda {

// The contracts are those of ../cpu/kernels.h. `order` is the stable sorted order of the index (null: few rows, which
// are looked through).
int softmax_stats(const LogitsView& logits, const int64_t* labels, int64_t ignore, float* out, void* stream);

int soft_stats(const LogitsView& logits, const LogitsView& targets, float* out, int64_t* unnormalised, void* stream);

int sigmoid_stats(const LogitsView& logits, const BinaryLabels& labels, float* out, void* stream);

// `order` [rows] is the stable sorted order of the owners; null where there are no owners. `scratch` has room for
// `reduce_scratch(rows)` bytes.
int64_t reduce_scratch(const RowsView& rows);
int reduce_rows(const RowsView& rows, const int64_t* order, void* scratch, float* out, int64_t* out_labels,
                int64_t* skipped, void* stream);

// Writes the step to options.steps, and counts it up at the end.
int record_stats(Record* table, int64_t examples, const int64_t* index, const int64_t* order, const LogitsView& logits,
                 const int64_t* labels, const RecordOptions& options, int64_t* skipped, void* stream);

// `stats` [rows, kStats] as softmax_stats gives them, of `classes` classes. Rows of index kPadding are passed over.
int record_given_stats(Record* table, int64_t examples, const int64_t* index, const int64_t* order, const float* stats,
                       const int64_t* labels, int64_t rows, int64_t classes, const RecordOptions& options,
                       int64_t* skipped, void* stream);

// `records` [state.examples] are those that record_stats has recorded the same rows in (null: not known).
int record_temporal(const TemporalView& state, const int64_t* index, const int64_t* order, const LogitsView& logits,
                    const int64_t* labels, int64_t ignore, const Record* records, int64_t* skipped, void* stream);

// `scale` [rows] multiplies each row (null: 1); `subset` [state.pixels] names the pixels to read (null: all).
int record_gradients(const MomentsView& state, const int64_t* index, const int64_t* order,
                     const GradientsView& gradients, const float* scale, const int64_t* subset, int64_t* skipped,
                     void* stream);

// Adds `other` to `state`.
int merge_moments(const MomentsView& state, const MomentsView& other, void* stream);

int gradient_variance(const GradientsView& gradients, int64_t checkpoints, int64_t checkpoint_stride, bool take_root,
                      float* out, void* stream);

const char* error_string(int error);

}  // namespace dp::cuda
