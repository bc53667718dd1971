// What the CUDA half offers to the rest: launchers over raw pointers and a stream. They return a
// cudaError_t as int (0 is success), launch nothing for an empty batch, and never synchronise.
#pragma once

#include "../core/record.h"
#include "../core/soft.h"
#include "../core/temporal.h"
#include "../core/views.h"

namespace dp::cuda {

// The contracts are those of ../cpu/kernels.h. Outputs of statistics are aligned to 16 bytes.
int softmax_stats(const LogitsView& logits, const int64_t* labels, int64_t ignore, float* out, void* stream);

int soft_stats(const LogitsView& logits, const LogitsView& targets, float* out, int64_t* unnormalised, void* stream);

int sigmoid_stats(const LogitsView& logits, const BinaryLabels& labels, float* out, void* stream);

// `sorted` [rows] are the owners, sorted by a stable sort, and `order` [rows] where each stood; null where there are no
// owners. `scratch` has room for `reduce_scratch(rows)` bytes.
int64_t reduce_scratch(const RowsView& rows);
int reduce_rows(const RowsView& rows, const int64_t* sorted, const int64_t* order, void* scratch, float* out,
                int64_t* out_labels, int64_t* skipped, void* stream);

// Rows that present the same example are chained first, and the links [rows] say how (see chains.cuh). Kernels that
// record take them. A row whose index is not in [0, examples) is alone. Counts up `step` (null: not kept), which is to
// be options.steps + examples.
constexpr int64_t kFewRows = 1024;  // that one block can sort
int chain_few_rows(const int64_t* index, int64_t rows, int64_t examples, uint32_t* links, int32_t* step, void* stream);

// The same for any number of them but none. `sorted` [rows] is the index, sorted by a stable sort, and `order` [rows]
// where each value stood; both are aligned to 16 bytes.
int chain_sorted_rows(const int64_t* sorted, const int64_t* order, int64_t rows, int64_t examples, uint32_t* links,
                      int32_t* step, void* stream);

int record_stats(Record* table, int64_t examples, const int64_t* index, const uint32_t* links, const LogitsView& logits,
                 const int64_t* labels, const RecordOptions& options, int64_t* skipped, void* stream);

int record_given_stats(Record* table, int64_t examples, const int64_t* index, const uint32_t* links, const float* stats,
                       const int64_t* labels, int64_t rows, int64_t classes, const RecordOptions& options,
                       int64_t* skipped, void* stream);

int record_temporal(const TemporalView& state, const int64_t* index, const uint32_t* links, const LogitsView& logits,
                    const int64_t* labels, int64_t ignore, const Record* records, int64_t* skipped, void* stream);

int record_gradients(const MomentsView& state, const int64_t* index, const uint32_t* links,
                     const GradientsView& gradients, const float* scale, const int64_t* subset, int64_t* skipped,
                     void* stream);

int merge_moments(const MomentsView& state, const MomentsView& other, void* stream);

int gradient_variance(const GradientsView& gradients, int64_t checkpoints, int64_t checkpoint_stride, bool take_root,
                      float* out, void* stream);

const char* error_string(int error);

}  // namespace dp::cuda
