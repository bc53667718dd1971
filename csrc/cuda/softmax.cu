#include <cmath>
#include <type_traits>

#include "chains.cuh"
#include "launch.h"
#include "packs.cuh"
#include "warp.cuh"

namespace dp::cuda {
namespace {

constexpr int kHeldClasses = 1024;  // rows up to this length wait in registers

// The largest logits of the classes on either side of the label.
struct Extrema {
  float before = -INFINITY, after = -INFINITY;

  __device__ __forceinline__ void add(float z, bool is_before, bool is_after) {
    before = is_before ? larger(z, before) : before;
    after = is_after ? larger(z, after) : after;
  }

  __device__ __forceinline__ void reduce() {
    before = reduce_warp(before, larger);
    after = reduce_warp(after, larger);
  }
};

__device__ __forceinline__ SoftmaxStats finish_lanes(float z_label, const Extrema& extrema, const OtherClasses& mine,
                                                     bool single_class) {
  const OtherClasses others = {sum_warp(mine.e), sum_warp(mine.e_times_d), sum_warp(mine.e_squared)};
  return finish_stats(z_label, extrema.before, extrema.after, others, single_class);
}

// One warp reads one row, kWidth adjacent classes a lane at a time; every lane gets the result. Here the row
// stays in registers between the search for the largest logit and the sums relative to it.
template <int kWidth, class T>
__device__ __forceinline__ SoftmaxStats held_row_stats(const T* z, int classes, int label, int lane) {
  constexpr int kPacks = kHeldClasses / (kWarp * kWidth);
  Pack<T, kWidth> held[kPacks];
  const float z_label = to_float(z[label]);
  Extrema extrema;
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    const int c = (i * kWarp + lane) * kWidth;
    if (c < classes) held[i] = load<kWidth>(z + c);
  }
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    const int c = (i * kWarp + lane) * kWidth;
    if (c < classes) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) extrema.add(to_float(held[i].lane[j]), c + j<label, c + j> label);
    }
  }
  extrema.reduce();
  const float top = larger(z_label, larger(extrema.before, extrema.after));
  OtherClasses others;
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    const int c = (i * kWarp + lane) * kWidth;
    if (c < classes) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if (c + j != label) others.add(to_float(held[i].lane[j]), top);
      }
    }
  }
  return finish_lanes(z_label, extrema, others, classes == 1);
}

// Longer rows are read once as well: each lane sums relative to the largest logit that it has seen so far.
template <int kWidth, class T>
__device__ __forceinline__ SoftmaxStats online_row_stats(const T* z, int64_t classes, int64_t label, int lane) {
  constexpr int kLoads = kWidth == 1 ? 8 : 2;
  constexpr int64_t kStep = int64_t(kLoads) * kWarp * kWidth;
  const float z_label = to_float(z[label]);
  Extrema extrema;
  OtherClasses others;
  float top = z_label;
  for (int64_t start = 0; start < classes; start += kStep) {
    Pack<T, kWidth> packs[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int64_t c = start + (int64_t(i) * kWarp + lane) * kWidth;
      if (c < classes) packs[i] = load<kWidth>(z + c);
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int64_t c = start + (int64_t(i) * kWarp + lane) * kWidth;
      if (c < classes) {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) extrema.add(to_float(packs[i].lane[j]), c + j<label, c + j> label);
      }
    }
    const float new_top = larger(top, larger(extrema.before, extrema.after));
    others.rebase(top, new_top);
    top = new_top;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int64_t c = start + (int64_t(i) * kWarp + lane) * kWidth;
      if (c < classes) {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          if (c + j != label) others.add(to_float(packs[i].lane[j]), top);
        }
      }
    }
  }
  extrema.reduce();
  others.rebase(top, larger(z_label, larger(extrema.before, extrema.after)));
  return finish_lanes(z_label, extrema, others, classes == 1);
}

template <int kWidth, bool kHeld, class T>
__device__ __forceinline__ SoftmaxStats row_stats(const T* z, int64_t classes, int64_t label, int lane) {
  if constexpr (kHeld) {
    return held_row_stats<kWidth>(z, int(classes), int(label), lane);
  } else {
    return online_row_stats<kWidth>(z, classes, label, lane);
  }
}

// logits [B, C], labels [B] -> out [B, kStats]
template <int kWidth, bool kHeld, class T>
__global__ void __launch_bounds__(kBlock, 4)
    softmax_stats_kernel(const T* data, LogitsView logits, const int64_t* labels, float* out) {
  const int lane = threadIdx.x % kWarp;
  const int64_t row = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (row >= logits.rows) return;
  const int64_t label = labels[row];
  SoftmaxStats r;
  r.value[kLoss] = NAN;
  if (is_class(label, logits)) {
    r = row_stats<kWidth, kHeld>(data + row * logits.row_stride, logits.classes, label, lane);
  }
  if (lane == 0) {
    const bool known = is_finite(r.value[kLoss]);
    Pack<float, kStats> known_stats;
#pragma unroll
    for (int s = 0; s < kStats; ++s) known_stats.lane[s] = known ? r.value[s] : NAN;
    store(out + row * kStats, known_stats);
  }
}

// table [N] of records, index [B], labels [B]. result_of(row, label) is the same for every lane.
template <class ResultOf>
__device__ __forceinline__ void record_rows(Record* table, int64_t examples, const int64_t* index,
                                            const uint32_t* links, const int64_t* labels, int64_t classes,
                                            int64_t* skipped, int64_t head, int lane, const ResultOf& result_of) {
  constexpr int kFloats = sizeof(Record) / sizeof(float);
  const int64_t example = index[head];
  if (example < 0 || example >= examples) {
    if (lane == 0) count_skipped(skipped, kBadIndex);
    return;
  }
  Presentations presentations(links, head);
  if (!presentations.left()) return;
  float* line = reinterpret_cast<float*>(table + example);
  Record record = {};  // the first lane's is the one that counts
  if (lane == 0) {
    const auto loaded = load<kFloats>(line);
    memcpy(&record, &loaded, sizeof record);
  }
  for (; presentations.left(); presentations.next()) {
    const int64_t row = presentations.row(), label = labels[row];
    if (label < 0 || label >= classes) {
      if (lane == 0) count_skipped(skipped, kBadLabel);
      continue;
    }
    const SoftmaxStats r = result_of(row, label);
    if (lane == 0) {
      const int fault = fault_of(record, r, label);
      if (fault == kSkippedKinds) {
        update_record(record, r, label);
      } else {
        count_skipped(skipped, fault);
      }
    }
  }
  if (lane == 0) {
    Pack<float, kFloats> updated;
    memcpy(&updated, &record, sizeof record);
    store(line, updated);
  }
}

// logits [B, C]
template <int kWidth, bool kHeld, class T>
__global__ void __launch_bounds__(kBlock, 4)
    record_stats_kernel(Record* table, int64_t examples, const int64_t* index, const uint32_t* links, const T* data,
                        LogitsView logits, const int64_t* labels, int64_t* skipped) {
  const int lane = threadIdx.x % kWarp;
  const int64_t head = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (head >= logits.rows) return;
  record_rows(table, examples, index, links, labels, logits.classes, skipped, head, lane,
              [&](int64_t row, int64_t label) {
                return row_stats<kWidth, kHeld>(data + row * logits.row_stride, logits.classes, label, lane);
              });
}

// stats [B, kStats]
__global__ void __launch_bounds__(kBlock, 4)
    record_given_stats_kernel(Record* table, int64_t examples, const int64_t* index, const uint32_t* links,
                              const float* stats, const int64_t* labels, int64_t rows, int64_t classes,
                              int64_t* skipped) {
  const int lane = threadIdx.x % kWarp;
  const int64_t head = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (head >= rows || index[head] == kPadding) return;
  record_rows(table, examples, index, links, labels, classes, skipped, head, lane,
              [&](int64_t row, int64_t) { return given_stats(stats + row * kStats); });
}

// Calls launch(data, width, held) with the widest reads that the layout allows.
template <class F>
int visit_widths(const LogitsView& logits, F&& launch) {
  if (logits.rows == 0) return cudaSuccess;
  visit_logits(logits, [&](auto* data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    constexpr int kWidth = kPackWidth<T>;
    const auto visit_width = [&](auto width) {
      if (logits.classes <= kHeldClasses) {
        launch(data, width, std::true_type{});
      } else {
        launch(data, width, std::false_type{});
      }
    };
    if (packed(logits, data)) {
      visit_width(std::integral_constant<int, kWidth>{});
    } else {
      visit_width(std::integral_constant<int, 1>{});
    }
  });
  return cudaGetLastError();
}

}  // namespace

int softmax_stats(const LogitsView& logits, const int64_t* labels, float* out, void* stream) {
  if (!aligned(out)) return cudaErrorInvalidValue;
  return visit_widths(logits, [&](auto* data, auto width, auto held) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    DP_LAUNCH((softmax_stats_kernel<decltype(width)::value, decltype(held)::value, T>), blocks_for(logits.rows), kBlock,
              0, stream, data, logits, labels, out);
  });
}

int record_stats(Record* table, int64_t examples, const int64_t* index, const uint32_t* links, const LogitsView& logits,
                 const int64_t* labels, int64_t* skipped, void* stream) {
  return visit_widths(logits, [&](auto* data, auto width, auto held) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    DP_LAUNCH((record_stats_kernel<decltype(width)::value, decltype(held)::value, T>), blocks_for(logits.rows), kBlock,
              0, stream, table, examples, index, links, data, logits, labels, skipped);
  });
}

int record_given_stats(Record* table, int64_t examples, const int64_t* index, const uint32_t* links, const float* stats,
                       const int64_t* labels, int64_t rows, int64_t classes, int64_t* skipped, void* stream) {
  if (rows == 0) return cudaSuccess;
  DP_LAUNCH(record_given_stats_kernel, blocks_for(rows), kBlock, 0, stream, table, examples, index, links, stats,
            labels, rows, classes, skipped);
  return cudaGetLastError();
}

const char* error_string(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace dp::cuda
