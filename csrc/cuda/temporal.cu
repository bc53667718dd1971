#include <cmath>
#include <type_traits>

#include "chains.cuh"
#include "held.cuh"
#include "launch.h"
#include "rows.cuh"

namespace dp::cuda {
namespace {

// Fills the row's shared memory on the way. Afterwards each lane may read all of the row.
template <int kWidth, class T>
__device__ __forceinline__ Normalizer normalizer(const HeldRow<T>& row, int lane) {
  float top = -INFINITY, e = 0.0f;
  const int64_t first = int64_t(lane) * kWidth;
#pragma unroll 4
  for (int64_t c = first; c < row.classes; c += kWarp * kWidth) {
    const auto pack = row.template read<kWidth>(c);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) top = larger(to_float(pack.lane[j]), top);
  }
  top = reduce_warp(top, larger);
#pragma unroll 4
  for (int64_t c = first; c < row.classes; c += kWarp * kWidth) {
    const auto pack = row.template at<kWidth>(c);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) e += expf(to_float(pack.lane[j]) - top);
  }
  __syncwarp();
  return {top, logf(sum_warp(e))};
}

// Sum of p |log p - last log p|; log_p [classes] holds the last and becomes that of this row.
template <int kWidth, class T>
__device__ __forceinline__ float change_log_p(const HeldRow<T>& row, const Normalizer& n, float* log_p, int lane) {
  float change = 0.0f;
#pragma unroll 4
  for (int64_t c = int64_t(lane) * kWidth; c < row.classes; c += kWarp * kWidth) {
    const auto pack = row.template at<kWidth>(c);
    auto state = load<kWidth>(log_p + c);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const float x = n.clamped_log_p(to_float(pack.lane[j]));
      change += expf(x) * fabsf(x - state.lane[j]);
      state.lane[j] = x;
    }
    store(log_p + c, state);
  }
  return sum_warp(change);
}

// What `spread` computes, of a ring in which `value` has just replaced the one at `newest`. Deviations are from
// `value`, so that equal values have none.
__device__ __forceinline__ float spread_of_ring(const float* ring, int64_t n, int64_t newest, float value, int lane) {
  constexpr int kKept = 4;  // a lane
  const auto at = [&](int64_t i) { return i < n && i != newest ? ring[i] - value : 0.0f; };
  float kept[kKept], mean = 0.0f, squares = 0.0f;
#pragma unroll
  for (int k = 0; k < kKept; ++k) mean += kept[k] = at(k * kWarp + lane);
  for (int64_t i = kKept * kWarp + lane; i < n; i += kWarp) mean += at(i);
  mean = sum_warp(mean) / float(n);
  const auto add = [&](int64_t i, float deviation) {
    squares += i < n ? (deviation - mean) * (deviation - mean) : 0.0f;
  };
#pragma unroll
  for (int k = 0; k < kKept; ++k) add(k * kWarp + lane, kept[k]);
  for (int64_t i = kKept * kWarp + lane; i < n; i += kWarp) add(i, at(i));
  return sqrtf(sum_warp(squares));
}

// `update_temporal` by all lanes. The first alone writes, and alone reads what it writes.
__device__ __forceinline__ void update_windows(float* row, const TemporalView& state, float p_label, float change,
                                               int lane) {
  const int64_t window = state.window;
  float *const p_labels = row + 2, *const average = p_labels + window, *const changes = average + 1;
  const int64_t before = __shfl_sync(kWholeWarp, lane == 0 ? int64_t(row[0]) : 0, 0);
  const bool complete = before + 1 >= window, changed = state.with_changes && before > 0;
  const int64_t newest = before % window, newest_change = changed ? (before - 1) % (window - 1) : 0;
  float spread_p = 0.0f, spread_change = 0.0f;
  if (complete) {
    spread_p = spread_of_ring(p_labels, window, newest, p_label, lane);
    if (changed) spread_change = spread_of_ring(changes, window - 1, newest_change, change, lane);
  }
  __syncwarp();
  if (lane == 0) {
    row[0] = float(before + 1);
    p_labels[newest] = p_label;
    if (complete) row[1] += spread_p / sqrtf(float(window - 1));
    if (changed) {
      changes[newest_change] = change;
      if (complete) *average = (1.0f - state.decay) * *average + state.decay * spread_change;
    }
  }
  __syncwarp();
}

// index [B], logits [B, C], labels [B]; `held` classes fit into the shared memory of each warp.
template <int kWidth, class T>
__global__ void __launch_bounds__(kBlock, 4)
    record_temporal_kernel(TemporalView state, bool wide_state, const int64_t* index, const uint32_t* links,
                           const T* data, LogitsView logits, const int64_t* labels, int64_t ignore,
                           const Record* records, int64_t held, int64_t* skipped) {
  DP_DYNAMIC_SHARED(uint4, shared);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t head = int64_t(blockIdx.x) * (blockDim.x / kWarp) + warp;
  if (head >= logits.rows) return;
  const int64_t example = index[head];
  if (example < 0 || example >= state.examples) {
    if (lane == 0 && !is_ignored(labels[head], ignore)) count_skipped(skipped, kBadIndex);
    return;
  }
  for (Presentations presentations(links, head); presentations.left(); presentations.next()) {
    const int64_t label = labels[presentations.row()];
    if (is_ignored(label, ignore)) continue;
    if (!is_class(label, logits)) {
      if (lane == 0) count_skipped(skipped, kBadLabel);
      continue;
    }
    const HeldRow<T> row = {data + presentations.row() * logits.row_stride, reinterpret_cast<T*>(shared) + warp * held,
                            logits.classes, held};
    const Normalizer n = normalizer<kWidth>(row, lane);
    const float z_label = to_float(row.template at<1>(label).lane[0]);
    if (!is_finite(n.log_p(z_label))) {
      if (lane == 0) count_skipped(skipped, kNotFinite);
    } else if (records != nullptr && has_other_label(records[example], label)) {
      if (lane == 0) count_skipped(skipped, kChangedLabel);
    } else {
      float change = 0.0f;
      if (state.with_changes) {
        float* const log_p = state.log_p(example);
        const bool wide = kWidth > 1 && wide_state;
        change = wide ? change_log_p<4>(row, n, log_p, lane) : change_log_p<1>(row, n, log_p, lane);
      }
      update_windows(state.row(example), state, expf(n.clamped_log_p(z_label)), change, lane);
    }
    __syncwarp();  // all lanes are done with shared memory
  }
}

template <int kWidth, class T>
void launch(const TemporalView& state, const int64_t* index, const uint32_t* links, const T* data,
            const LogitsView& logits, const int64_t* labels, int64_t ignore, const Record* records, int64_t* skipped,
            void* stream) {
  const auto kernel = record_temporal_kernel<kWidth, T>;
  const Shape shape = shape_for(kernel, logits.classes, sizeof(T));
  const bool wide_state = kWidth > 1 && state.with_changes && state.width % 4 == 0 && aligned(state.log_p(0));
  const unsigned blocks = unsigned((logits.rows + shape.warps - 1) / shape.warps);
  DP_LAUNCH(kernel, blocks, shape.warps * kWarp, shape.warps * shape.held * sizeof(T), stream, state, wide_state, index,
            links, data, logits, labels, ignore, records, shape.held, skipped);
}

}  // namespace

int record_temporal(const TemporalView& state, const int64_t* index, const uint32_t* links, const LogitsView& logits,
                    const int64_t* labels, int64_t ignore, const Record* records, int64_t* skipped, void* stream) {
  if (logits.rows == 0) return cudaSuccess;
  visit_logits(logits, [&](auto* data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    if (packed(logits, data)) {
      launch<kPackWidth<T>>(state, index, links, data, logits, labels, ignore, records, skipped, stream);
    } else {
      launch<1>(state, index, links, data, logits, labels, ignore, records, skipped, stream);
    }
  });
  return cudaGetLastError();
}

}  // namespace dp::cuda
