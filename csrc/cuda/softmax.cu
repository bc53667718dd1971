#include <cmath>

#include "launch.h"
#include "warp.cuh"

namespace dp::cuda {
namespace {

constexpr int kWarpsPerBlock = 4;

struct RowResult {
  SoftmaxStats stats;
  bool finite;
};

// One warp reads one row; every lane gets the result.
template <class T>
__device__ RowResult row_stats(const T* z, int64_t classes, int64_t label, int lane) {
  float before = -INFINITY, after = -INFINITY, probe = 0.0f;
  for (int64_t c = lane; c < classes; c += kWarp) {
    const float value = to_float(z[c]);
    probe += finite_probe(value);
    if (c < label) before = larger(value, before);
    if (c > label) after = larger(value, after);
  }
  if (sum_warp(probe) != 0.0f) return {{}, false};  // NaN compares unequal
  before = reduce_warp(before, larger);
  after = reduce_warp(after, larger);
  const float z_label = to_float(z[label]);
  const float top = larger(z_label, larger(before, after));
  OtherClasses others;
  for (int64_t c = lane; c < classes; c += kWarp) {
    if (c != label) others.add(to_float(z[c]), top);
  }
  others = {sum_warp(others.e), sum_warp(others.e_times_d), sum_warp(others.e_squared)};
  return {finish_stats(z_label, before, after, others), true};
}

// logits [B, C], labels [B] -> out [B, kStats]
template <class T>
__global__ void __launch_bounds__(kWarpsPerBlock* kWarp)
    softmax_stats_kernel(const T* data, LogitsView logits, const int64_t* labels, float* out) {
  const int lane = threadIdx.x % kWarp;
  const int64_t row = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (row >= logits.rows) return;
  const int64_t label = labels[row];
  RowResult r{{}, false};
  if (label >= 0 && label < logits.classes) r = row_stats(data + row * logits.row_stride, logits.classes, label, lane);
  if (lane == 0) {
    for (int s = 0; s < kStats; ++s) out[row * kStats + s] = r.finite ? r.stats.value[s] : NAN;
  }
}

// table [N] of records, index [B], logits [B, C], labels [B]. The warp of an example's first row handles all
// of its rows in batch order: deterministic, and no two warps touch one record.
template <class T>
__global__ void __launch_bounds__(kWarpsPerBlock* kWarp)
    record_stats_kernel(Record* table, int64_t examples, const int64_t* index, const T* data, LogitsView logits,
                        const int64_t* labels, int64_t* skipped) {
  const int lane = threadIdx.x % kWarp;
  const int64_t head = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (head >= logits.rows) return;
  const int64_t example = index[head];
  if (example < 0 || example >= examples) {
    if (lane == 0) count_skipped(skipped, kBadIndex);
    return;
  }
  if (next_presentation(index, example, 0, head, lane) < head) return;
  for (int64_t row = head; row < logits.rows; row = next_presentation(index, example, row + 1, logits.rows, lane)) {
    const int64_t label = labels[row];
    if (label < 0 || label >= logits.classes) {
      if (lane == 0) count_skipped(skipped, kBadLabel);
      continue;
    }
    const RowResult r = row_stats(data + row * logits.row_stride, logits.classes, label, lane);
    if (lane == 0) {
      if (r.finite) {
        Record record = table[example];
        update_record(record, r.stats, label);
        table[example] = record;
      } else {
        count_skipped(skipped, kNotFinite);
      }
    }
  }
}

unsigned blocks_for(int64_t rows) { return unsigned((rows + kWarpsPerBlock - 1) / kWarpsPerBlock); }

template <class F>
int visit_logits(const LogitsView& logits, F&& launch) {
  if (logits.rows == 0) return cudaSuccess;
  visit_elements(logits.data, logits.type, [&](auto* data) {
    if constexpr (!std::is_same_v<decltype(data), const double*>) launch(data);  // the caller refuses float64
  });
  return cudaGetLastError();
}

}  // namespace

int softmax_stats(const LogitsView& logits, const int64_t* labels, float* out, void* stream) {
  return visit_logits(logits, [&](auto* data) {
    DP_LAUNCH(softmax_stats_kernel, blocks_for(logits.rows), kWarpsPerBlock * kWarp, stream, data, logits, labels, out);
  });
}

int record_stats(Record* table, int64_t examples, const int64_t* index, const LogitsView& logits, const int64_t* labels,
                 int64_t* skipped, void* stream) {
  return visit_logits(logits, [&](auto* data) {
    DP_LAUNCH(record_stats_kernel, blocks_for(logits.rows), kWarpsPerBlock * kWarp, stream, table, examples, index,
              data, logits, labels, skipped);
  });
}

const char* error_string(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace dp::cuda
