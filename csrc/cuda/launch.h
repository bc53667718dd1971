// What the CUDA half offers to the rest: launchers over raw pointers and a stream. They return a
// cudaError_t as int (0 is success), launch nothing for an empty batch, and never synchronise.
#pragma once

#include "../core/record.h"
#include "../core/temporal.h"
#include "../core/views.h"

namespace dp::cuda {

// Rows that present the same example are chained first, and the links [rows] say how (see chains.cuh). Kernels that
// record take them. A row whose index is not in [0, examples) is alone.
constexpr int64_t kFewRows = 1024;  // that one block can sort

int chain_few_rows(const int64_t* index, int64_t rows, int64_t examples, uint32_t* links, void* stream);

// `sorted` [rows] is the index, sorted by a stable sort, and `order` [rows] where each value stood; both aligned to 16
// bytes.
int chain_sorted_rows(const int64_t* sorted, const int64_t* order, int64_t rows, int64_t examples, uint32_t* links,
                      void* stream);

// `out` [rows, kStats] is aligned to 16 bytes.
int softmax_stats(const LogitsView& logits, const int64_t* labels, float* out, void* stream);

int record_stats(Record* table, int64_t examples, const int64_t* index, const uint32_t* links, const LogitsView& logits,
                 const int64_t* labels, int64_t* skipped, void* stream);

// `stats` [rows, kStats] as softmax_stats gives them, of `classes` classes. Rows of index kPadding are passed over.
int record_given_stats(Record* table, int64_t examples, const int64_t* index, const uint32_t* links, const float* stats,
                       const int64_t* labels, int64_t rows, int64_t classes, int64_t* skipped, void* stream);

// `records` [state.examples] are those that record_stats has recorded the same rows in (null: not known).
int record_temporal(const TemporalView& state, const int64_t* index, const uint32_t* links, const LogitsView& logits,
                    const int64_t* labels, const Record* records, int64_t* skipped, void* stream);

// `scale` [rows] multiplies each row (null: 1); `subset` [state.pixels] names the pixels to read (null: all).
int record_gradients(const MomentsView& state, const int64_t* index, const uint32_t* links,
                     const GradientsView& gradients, const float* scale, const int64_t* subset, int64_t* skipped,
                     void* stream);

// Adds `other` to `state`.
int merge_moments(const MomentsView& state, const MomentsView& other, void* stream);

int gradient_variance(const GradientsView& gradients, int64_t checkpoints, int64_t checkpoint_stride, bool take_root,
                      float* out, void* stream);

const char* error_string(int error);

}  // namespace dp::cuda
