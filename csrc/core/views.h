// Tensors as kernels see them: a pointer, an element type, sizes and strides (in elements).
#pragma once

#include <cstdint>
#include <type_traits>

#include "numbers.h"

namespace dp {

// [rows, classes]; classes are adjacent in memory.
struct LogitsView {
  const void* data;
  ElementType type;
  int64_t rows, classes;
  int64_t row_stride;
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

// The index of a row that only fills up a batch, where an operator knows of such rows.
constexpr int64_t kPadding = -1;

// Why a presentation was left out; positions in the counter that kernels add to.
enum Skipped { kBadIndex = 0, kBadLabel = 1, kNotFinite = 2, kChangedLabel = 3, kSkippedKinds = 4 };

}  // namespace dp
