// What the CUDA half offers to the rest: launchers over raw pointers and a stream. They return a
// cudaError_t as int (0 is success), launch nothing for an empty batch, and never synchronise.
#pragma once

#include "../core/record.h"
#include "../core/views.h"

namespace dp::cuda {

int softmax_stats(const LogitsView& logits, const int64_t* labels, float* out, void* stream);

int record_stats(Record* table, int64_t examples, const int64_t* index, const LogitsView& logits, const int64_t* labels,
                 int64_t* skipped, void* stream);

int record_gradients(int32_t* count, float* mean, float* m2, int64_t examples, const int64_t* index,
                     const GradientsView& gradients, const float* scale, int64_t* skipped, void* stream);

int gradient_variance(const GradientsView& gradients, int64_t checkpoints, int64_t checkpoint_stride, bool take_root,
                      float* out, void* stream);

const char* error_string(int error);

}  // namespace dp::cuda
