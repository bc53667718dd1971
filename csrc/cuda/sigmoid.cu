#include <cmath>
#include <type_traits>

#include "launch.h"
#include "rows.cuh"

namespace dp::cuda {
namespace {

enum class BinaryLabel { kZero, kOne, kIgnored, kBad };

// A label that is ignored may be 0 or 1, where only the others are known.
__device__ __forceinline__ BinaryLabel label_of(int64_t label, int64_t ignore) {
  if (is_ignored(label, ignore)) return BinaryLabel::kIgnored;
  return label == 1 ? BinaryLabel::kOne : label == 0 ? BinaryLabel::kZero : BinaryLabel::kBad;
}

__device__ __forceinline__ BinaryLabel label_of(double label, int64_t ignore) {
  if (label != label || (ignore != kNoLabel && label == double(ignore))) return BinaryLabel::kIgnored;
  return label == 1.0 ? BinaryLabel::kOne : label == 0.0 ? BinaryLabel::kZero : BinaryLabel::kBad;
}

__device__ __forceinline__ BinaryLabel label_at(const BinaryLabels& labels, int64_t row) {
  switch (labels.type) {
    case BinaryType::kBool:
      return label_of(int64_t(static_cast<const uint8_t*>(labels.data)[row] != 0), labels.ignore);
    case BinaryType::kUInt8:
      return label_of(int64_t(static_cast<const uint8_t*>(labels.data)[row]), labels.ignore);
    case BinaryType::kInt32:
      return label_of(int64_t(static_cast<const int32_t*>(labels.data)[row]), labels.ignore);
    case BinaryType::kInt64:
      return label_of(static_cast<const int64_t*>(labels.data)[row], labels.ignore);
    case BinaryType::kFloat32:
      return label_of(double(static_cast<const float*>(labels.data)[row]), labels.ignore);
    case BinaryType::kFloat64:
      return label_of(static_cast<const double*>(labels.data)[row], labels.ignore);
    case BinaryType::kBFloat16:
      return label_of(to_double(static_cast<const BFloat16*>(labels.data)[row]), labels.ignore);
    case BinaryType::kFloat16:
      return label_of(to_double(static_cast<const Float16*>(labels.data)[row]), labels.ignore);
  }
  return BinaryLabel::kBad;
}

// logits [rows], of one logit each, labels [rows] -> out [rows, kStats]. A thread a row.
template <class T>
__global__ void __launch_bounds__(kBlock, 8)
    sigmoid_stats_kernel(const T* data, LogitsView logits, BinaryLabels labels, float* out) {
  const int64_t row = int64_t(blockIdx.x) * kBlock + threadIdx.x;
  if (row >= logits.rows) return;
  const BinaryLabel label = label_at(labels, row);
  const float z = to_float(data[logits.offset(row)]);
  const SoftmaxStats stats = known(binary_stats<RowMath>(z, label == BinaryLabel::kOne), label != BinaryLabel::kBad);
  store_stats(out + row * kStats, label == BinaryLabel::kIgnored ? no_row() : stats);
}

}  // namespace

int sigmoid_stats(const LogitsView& logits, const BinaryLabels& labels, float* out, void* stream) {
  if (!aligned(out)) return cudaErrorInvalidValue;
  if (logits.rows == 0) return cudaSuccess;
  visit_logits(logits, [&](auto* data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    DP_LAUNCH((sigmoid_stats_kernel<T>), unsigned((logits.rows + kBlock - 1) / kBlock), kBlock, 0, stream, data, logits,
              labels, out);
  });
  return cudaGetLastError();
}

}  // namespace dp::cuda
