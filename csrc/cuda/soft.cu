#include <cmath>
#include <type_traits>

#include "held.cuh"
#include "launch.h"
#include "rows.cuh"

namespace dp::cuda {
namespace {

// Targets of any type, where a kernel for each would be too many.
struct AnyType {
  const void* data;
  ElementType type;

  __device__ __forceinline__ float at(int64_t i) const {
    switch (type) {
      case ElementType::kBFloat16:
        return to_float(static_cast<const BFloat16*>(data)[i]);
      case ElementType::kFloat16:
        return to_float(static_cast<const Float16*>(data)[i]);
      case ElementType::kFloat64:
        return to_float(static_cast<const double*>(data)[i]);
      default:
        return static_cast<const float*>(data)[i];
    }
  }
};

// What finish_soft_stats takes, of one row.
struct SoftRow {
  float z_label = -INFINITY, before = -INFINITY, after = -INFINITY;
  float rest, e_times_d, q, q_times_d, e_times_q, distance_squared, smallest_q;

  __device__ __forceinline__ void finish(bool single_class, float* out, int64_t* unnormalised) const {
    SoftmaxStats stats =
        finish_soft_stats<RowMath>(z_label, before, after, rest, e_times_d, q, q_times_d, e_times_q, distance_squared);
    if (single_class) stats.value[kLogitMargin] = stats.value[kPMargin] = 0.0f;
    store_stats(out, known(stats, true));
    if (unnormalised != nullptr && is_no_distribution(q, smallest_q)) count_skipped(unnormalised, 0);
  }
};

// Sums relative to the largest logit, of all classes.
struct SoftSums {
  float at_top = 0, below_top = 0, e_times_d = 0, q = 0, q_times_d = 0, e_times_q = 0, smallest_q = INFINITY;

  __device__ __forceinline__ float add(float z, float target, float top) {
    const float d = z - top, e = exp_quickly(d);
    at_top += d == 0.0f ? 1.0f : 0.0f;
    below_top += d == 0.0f ? 0.0f : e;
    e_times_d += e * fmaxf(d, -110.0f);
    q += target;
    q_times_d += target == 0.0f ? 0.0f : target * d;
    e_times_q += e * target;
    smallest_q = target < smallest_q ? target : smallest_q;
    return e;
  }
};

// The class of the largest target, the lowest of several.
struct Leader {
  float q = -INFINITY;
  int index = 0;

  __device__ __forceinline__ void add(float target, int c) {
    if (target > q) q = target, index = c;
  }
  __device__ __forceinline__ void reduce_warp() {
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      const float other_q = __shfl_xor_sync(kWholeWarp, q, offset);
      const int other = __shfl_xor_sync(kWholeWarp, index, offset);
      if (other_q > q || (other_q == q && other < index)) q = other_q, index = other;
    }
  }
};

// A warp reads a row once; it waits in shared memory. First the largest logit and target, then the sums, then how far p
// and q lie apart, from their differences.
template <int kWidth, class T, class Q>
__device__ __forceinline__ SoftRow read_soft_row(const HeldRow<T>& z, const HeldRow<Q>& q, int lane) {
  const int64_t first = int64_t(lane) * kWidth, step = kWarp * kWidth;
  Leader leader;
  float top = -FLT_MAX;  // finite, so that masked classes are below it
#pragma unroll 2
  for (int64_t c = first; c < z.classes; c += step) {
    const auto z_pack = z.template read<kWidth>(c);
    const auto q_pack = q.template read<kWidth>(c);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      top = fmaxf(to_float(z_pack.lane[j]), top);
      leader.add(to_float(q_pack.lane[j]), int(c) + j);
    }
  }
  leader.reduce_warp();
  top = reduce_warp(top, [](float a, float b) { return fmaxf(a, b); });

  SoftSums sums;
  SoftRow row;
#pragma unroll 2
  for (int64_t c = first; c < z.classes; c += step) {
    const auto z_pack = z.template at<kWidth>(c);
    const auto q_pack = q.template at<kWidth>(c);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const float value = to_float(z_pack.lane[j]);
      sums.add(value, to_float(q_pack.lane[j]), top);
      if (c + j < leader.index) row.before = fmaxf(value, row.before);
      if (c + j > leader.index) row.after = fmaxf(value, row.after);
      if (c + j == leader.index) row.z_label = value;
    }
  }
  const auto largest = [](float a, float b) { return fmaxf(a, b); };
  row.before = reduce_warp(row.before, largest);
  row.after = reduce_warp(row.after, largest);
  row.z_label = reduce_warp(row.z_label, largest);
  row.rest = sum_warp(sums.below_top) + (sum_warp(sums.at_top) - 1.0f);
  row.e_times_d = sum_warp(sums.e_times_d);
  row.q = sum_warp(sums.q);
  row.q_times_d = sum_warp(sums.q_times_d);
  row.e_times_q = sum_warp(sums.e_times_q);
  row.smallest_q = reduce_warp(sums.smallest_q, [](float a, float b) { return b < a ? b : a; });

  const float share = 1.0f / (1.0f + row.rest);
  float distance_squared = 0.0f;
#pragma unroll 2
  for (int64_t c = first; c < z.classes; c += step) {
    const auto z_pack = z.template at<kWidth>(c);
    const auto q_pack = q.template at<kWidth>(c);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const float difference = exp_quickly(to_float(z_pack.lane[j]) - top) * share - to_float(q_pack.lane[j]);
      distance_squared += difference * difference;
    }
  }
  row.distance_squared = sum_warp(distance_squared);
  return row;
}

// logits and targets [rows, classes] of adjacent classes -> out [rows, kStats]
template <int kWidth, class T, class Q>
__global__ void __launch_bounds__(kBlock, 4)
    soft_stats_kernel(const T* data, LogitsView logits, const Q* target_data, LogitsView targets, int64_t held,
                      float* out, int64_t* unnormalised) {
  DP_DYNAMIC_SHARED(uint4, shared);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t r = int64_t(blockIdx.x) * (blockDim.x / kWarp) + warp;
  if (r >= logits.rows) return;
  T* const held_z = reinterpret_cast<T*>(shared) + warp * held;
  Q* const held_q = reinterpret_cast<Q*>(reinterpret_cast<T*>(shared) + blockDim.x / kWarp * held) + warp * held;
  const HeldRow<T> z = {data + logits.offset(r), held_z, logits.classes, held};
  const HeldRow<Q> q = {target_data + targets.offset(r), held_q, logits.classes, held};
  const SoftRow row = read_soft_row<kWidth>(z, q, lane);
  if (lane == 0) row.finish(logits.classes == 1, out + r * kStats, unnormalised);
}

// What cancels between p and q where both are known only at the end is summed in double precision.
struct ThreadSoftSums : SoftSums {
  float top = -FLT_MAX;  // finite, so that masked classes are below it
  double e_squared = 0, e_times_q_wide = 0, q_squared = 0;

  __device__ __forceinline__ void rebase(float new_top) {
    if (new_top == top) return;
    const float shift = top - new_top, clamped = shift < -110.0f ? -110.0f : shift, factor = expf(clamped);
    e_times_d = factor * (e_times_d + clamped * (at_top + below_top));
    if (top > -FLT_MAX) q_times_d += shift * q;
    below_top = factor * (at_top + below_top);
    at_top = 0.0f;
    e_times_q_wide *= factor;
    e_squared *= double(factor) * factor;
    top = new_top;
  }

  // Classes summed apart, because many small addends in a row would each be rounded to a large sum.
  template <int kNumber>
  __device__ __forceinline__ void add(const float (&z)[kNumber], const float (&target)[kNumber], int64_t number) {
    SoftSums sums;
#pragma unroll
    for (int i = 0; i < kNumber; ++i) {
      if (i >= number) break;
      const double e = sums.add(z[i], target[i], top);
      e_squared += e * e;
      e_times_q_wide += e * target[i];
      q_squared += double(target[i]) * target[i];
    }
    at_top += sums.at_top;
    below_top += sums.below_top;
    e_times_d += sums.e_times_d;
    q += sums.q;
    q_times_d += sums.q_times_d;
    smallest_q = sums.smallest_q < smallest_q ? sums.smallest_q : smallest_q;
  }
};

// Classes lie apart, or targets are of an unusual type: a thread a row, of any layout.
template <class T>
__global__ void __launch_bounds__(kBlock, 4)
    strided_soft_stats_kernel(const T* data, LogitsView logits, AnyType target_data, LogitsView targets, float* out,
                              int64_t* unnormalised) {
  constexpr int kChunk = 4;
  const int64_t r = int64_t(blockIdx.x) * kBlock + threadIdx.x;
  if (r >= logits.rows) return;
  const T* const z = data + logits.offset(r);
  const int64_t q = targets.offset(r);
  float seen = -INFINITY, largest_q = -INFINITY;
  SoftRow row;
  ThreadSoftSums sums;
  for (int64_t start = 0; start < logits.classes; start += kChunk) {
    float values[kChunk], target[kChunk];
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      if (start + i < logits.classes) {
        values[i] = to_float(z[(start + i) * logits.class_stride]);
        target[i] = target_data.at(q + (start + i) * targets.class_stride);
      }
    }
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      if (start + i < logits.classes) {
        const bool leads = target[i] > largest_q;
        largest_q = leads ? target[i] : largest_q;
        row.z_label = leads ? values[i] : row.z_label;
        row.before = leads ? seen : row.before;
        row.after = leads ? -INFINITY : fmaxf(values[i], row.after);
        seen = fmaxf(values[i], seen);
      }
    }
    sums.rebase(fmaxf(seen, sums.top));
    sums.add(values, target, logits.classes - start);
  }
  row.rest = sums.below_top + (sums.at_top - 1.0f);
  row.e_times_d = sums.e_times_d;
  row.q = sums.q;
  row.q_times_d = sums.q_times_d;
  row.e_times_q = float(sums.e_times_q_wide);
  row.smallest_q = sums.smallest_q;
  const double share = 1.0 / (1.0 + double(row.rest));
  row.distance_squared = float((sums.e_squared * share - 2.0 * sums.e_times_q_wide) * share + sums.q_squared);
  row.finish(logits.classes == 1, out + r * kStats, unnormalised);
}

template <int kWidth, class T, class Q>
void launch_soft(const T* data, const LogitsView& logits, const Q* target_data, const LogitsView& targets, float* out,
                 int64_t* unnormalised, void* stream) {
  const auto kernel = soft_stats_kernel<kWidth, T, Q>;
  const Shape shape = shape_for(kernel, logits.classes, sizeof(T) + sizeof(Q));
  const unsigned blocks = unsigned((logits.rows + shape.warps - 1) / shape.warps);
  DP_LAUNCH(kernel, blocks, shape.warps * kWarp, shape.warps * shape.held * (sizeof(T) + sizeof(Q)), stream, data,
            logits, target_data, targets, shape.held, out, unnormalised);
}

}  // namespace

int soft_stats(const LogitsView& logits, const LogitsView& targets, float* out, int64_t* unnormalised, void* stream) {
  if (!aligned(out) || logits.classes > INT32_MAX) return cudaErrorInvalidValue;
  if (logits.rows == 0) return cudaSuccess;
  visit_logits(logits, [&](auto* data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    const auto launch = [&](auto* target_data) {
      using Q = std::remove_const_t<std::remove_pointer_t<decltype(target_data)>>;
      constexpr int kWide = kPackWidth<T> > kPackWidth<Q> ? kPackWidth<T> : kPackWidth<Q>;
      if (packed(logits, data) && packed(targets, target_data) && logits.classes % kWide == 0) {
        launch_soft<kWide>(data, logits, target_data, targets, out, unnormalised, stream);
      } else {
        launch_soft<1>(data, logits, target_data, targets, out, unnormalised, stream);
      }
    };
    const bool adjacent = logits.class_stride == 1 && targets.class_stride == 1 && logits.classes > kNarrow;
    if (adjacent && targets.type == ElementType::kFloat32) {
      launch(static_cast<const float*>(targets.data));
    } else if (adjacent && targets.type == logits.type) {
      launch(static_cast<const T*>(targets.data));
    } else {
      DP_LAUNCH((strided_soft_stats_kernel<T>), unsigned((logits.rows + kBlock - 1) / kBlock), kBlock, 0, stream, data,
                logits, AnyType{targets.data, targets.type}, targets, out, unnormalised);
    }
  });
  return cudaGetLastError();
}

}  // namespace dp::cuda
