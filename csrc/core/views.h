// Tensors as kernels see them: a pointer, an element type, sizes and strides (in elements).
#pragma once

#include <cstdint>
#include <type_traits>

#include "numbers.h"

namespace dp {

// Rows of logits, read where they are: of [B, C, d1, ...] every position of every example is one. `positions` rows
// lie `row_stride` apart; the outer dimensions, where strides do not let them be one with these, jump between such
// runs.
struct LogitsView {
  static constexpr int kOuterDims = 4;

  const void* data = nullptr;
  ElementType type = {};
  int64_t rows = 0, classes = 0;
  int64_t row_stride = 0;
  int64_t class_stride = 1;
  int64_t positions = rows;
  int outer_dims = 0;
  int64_t outer_size[kOuterDims] = {}, outer_stride[kOuterDims] = {};  // the fastest first

  // Where a row begins, in elements from `data`.
  DP_HD int64_t offset(int64_t row) const {
    if (outer_dims == 0) return row * row_stride;
    int64_t run = row / positions, at = (row - run * positions) * row_stride;
    for (int d = 0; d < kOuterDims; ++d) {  // so many, that compilers unroll it
      if (d >= outer_dims) break;
      const int64_t next = run / outer_size[d];
      at += (run - next * outer_size[d]) * outer_stride[d];
      run = next;
    }
    return at;
  }
};

DP_HD bool is_class(int64_t label, const LogitsView& logits) { return label >= 0 && label < logits.classes; }

// Calls f with a pointer of the C++ type of the logits, which are not float64: the caller refuses those.
template <class F>
void visit_logits(const LogitsView& logits, F&& f) {
  visit_elements(logits.data, logits.type, [&](auto* data) {
    if constexpr (!std::is_same_v<decltype(data), const double*>) f(data);
  });
}

// [rows, channels, pixels]; `pixels` is every dimension after the channels, flattened.
struct GradientsView {
  const void* data;
  ElementType type;
  int64_t rows, channels, pixels;
  int64_t row_stride, channel_stride, pixel_stride;
};

// Running moments of the gradients of all examples: count [examples], mean and m2 [examples, pixels].
struct MomentsView {
  int32_t* count;
  float* mean;
  void* m2;  // float, or BFloat16 where `narrow`
  bool narrow;
  int64_t examples, pixels;
};

// Calls f with a pointer of the C++ type of M2.
template <class F>
auto visit_m2(const MomentsView& state, F&& f) {
  return state.narrow ? f(static_cast<BFloat16*>(state.m2)) : f(static_cast<float*>(state.m2));
}

// Labels of rows of two classes, dense.
enum class BinaryType { kBool, kUInt8, kInt32, kInt64, kFloat32, kFloat64, kBFloat16, kFloat16 };
struct BinaryLabels {
  const void* data;
  BinaryType type;
  int64_t ignore;  // the label of rows that do not count
};

// Rows of statistics [rows, kStats] on their way to their examples.
struct RowsView {
  const float* stats;
  int64_t rows, examples;
  const int64_t* owner;   // [rows] in 0..examples-1, or kPadding for nobody; null: rows / examples adjacent rows each
  const float* weight;    // [rows], at least 0; null: 1
  const int64_t* labels;  // [rows]; null: rows have no label
};

// The index of a row that only fills up a batch, where an operator knows of such rows.
constexpr int64_t kPadding = -1;

// Why a presentation was left out; positions in the counter that kernels add to.
enum Skipped { kBadIndex = 0, kBadLabel = 1, kNotFinite = 2, kChangedLabel = 3, kSkippedKinds = 4 };

}  // namespace dp
