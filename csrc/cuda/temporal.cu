#include <cmath>
#include <type_traits>

#include "launch.h"
#include "warp.cuh"

namespace dp::cuda {
namespace {

template <class T>
__device__ __forceinline__ Normalizer normalizer(const T* z, int64_t classes, int lane) {
  float top = -INFINITY, e = 0.0f;
#pragma unroll 4
  for (int64_t c = lane; c < classes; c += kWarp) top = larger(to_float(z[c]), top);
  top = reduce_warp(top, larger);
#pragma unroll 4
  for (int64_t c = lane; c < classes; c += kWarp) e += expf(to_float(z[c]) - top);
  return {top, logf(sum_warp(e))};
}

// Sum of p |log p - last log p|; log_p [classes] holds the last and becomes that of this row.
template <class T>
__device__ __forceinline__ float change_log_p(const T* z, int64_t classes, const Normalizer& n, float* log_p,
                                              int lane) {
  float change = 0.0f;
#pragma unroll 4
  for (int64_t c = lane; c < classes; c += kWarp) {
    const float x = n.clamped_log_p(to_float(z[c]));
    change += expf(x) * fabsf(x - log_p[c]);
    log_p[c] = x;
  }
  return sum_warp(change);
}

// index [B], logits [B, C], labels [B]. The warp of an example's first row handles all of its rows in batch order. A
// lane meets its own classes again in the next row, and all else of the state is the first lane's: no lane waits.
template <class T>
__global__ void __launch_bounds__(kBlock, 4)
    record_temporal_kernel(TemporalView state, const int64_t* index, const T* data, LogitsView logits,
                           const int64_t* labels, const Record* records, int64_t* skipped) {
  const int lane = threadIdx.x % kWarp;
  const int64_t head = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (head >= logits.rows) return;
  const int64_t example = index[head];
  if (example < 0 || example >= state.examples) {
    if (lane == 0) count_skipped(skipped, kBadIndex);
    return;
  }
  if (next_presentation(index, example, 0, head, lane) < head) return;
  for (int64_t row = head; row < logits.rows; row = next_presentation(index, example, row + 1, logits.rows, lane)) {
    if (!is_class(labels[row], logits)) {
      if (lane == 0) count_skipped(skipped, kBadLabel);
      continue;
    }
    const T* z = data + row * logits.row_stride;
    const Normalizer n = normalizer(z, logits.classes, lane);
    const float z_label = to_float(z[labels[row]]);
    if (!is_finite(n.log_p(z_label))) {
      if (lane == 0) count_skipped(skipped, kNotFinite);
      continue;
    }
    if (records != nullptr && has_other_label(records[example], labels[row])) {
      if (lane == 0) count_skipped(skipped, kChangedLabel);
      continue;
    }
    const float change = state.with_changes ? change_log_p(z, logits.classes, n, state.log_p(example), lane) : 0.0f;
    if (lane == 0) update_temporal(state.row(example), state, expf(n.clamped_log_p(z_label)), change);
  }
}

}  // namespace

int record_temporal(const TemporalView& state, const int64_t* index, const LogitsView& logits, const int64_t* labels,
                    const Record* records, int64_t* skipped, void* stream) {
  if (logits.rows == 0) return cudaSuccess;
  visit_logits(logits, [&](auto* data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    DP_LAUNCH((record_temporal_kernel<T>), blocks_for(logits.rows), kBlock, 0, stream, state, index, data, logits,
              labels, records, skipped);
  });
  return cudaGetLastError();
}

}  // namespace dp::cuda
