#include <algorithm>
#include <cmath>
#include <type_traits>

#include "launch.h"
#include "rows.cuh"

namespace dp::cuda {
namespace {

// The weighted sum of rows, in double precision. Lanes, parts and examples are summed in an order that depends on
// nothing but their number.
struct Sum {
  double weight = 0, stats[kStats] = {};
  int64_t rows = 0, last = -1;  // how many, and the last of them

  __device__ __forceinline__ void add(const Sum& o) {
    weight += o.weight;
#pragma unroll
    for (int s = 0; s < kStats; ++s) stats[s] += o.stats[s];
    rows += o.rows;
    last = o.last > last ? o.last : last;
  }

  __device__ __forceinline__ void sum_lanes() {
    weight = sum_warp(weight);
#pragma unroll
    for (int s = 0; s < kStats; ++s) stats[s] = sum_warp(stats[s]);
    rows = sum_warp(rows);
    last = reduce_warp(last, [](int64_t a, int64_t b) { return a > b ? a : b; });
  }

  __device__ __forceinline__ void finish(const int64_t* labels, float* out, int64_t* out_label) const {
    SoftmaxStats mean = no_row();
    if (rows > 0) {
#pragma unroll
      for (int s = 0; s < kStats; ++s) mean.value[s] = float(stats[s] / weight);
    }
    store_stats(out, mean);
    *out_label = rows == 1 && labels != nullptr ? labels[last] : kNoLabel;
  }
};

// sorted [B] owners in ascending order -> starts [examples + 1], where the rows of each example begin. Thread i sees to
// the examples that begin at i: those above the owner before it, up to its own.
__global__ void __launch_bounds__(kBlock)
    find_owners_kernel(const int64_t* sorted, int64_t rows, int64_t examples, int64_t* starts, int64_t* skipped) {
  const int64_t i = int64_t(blockIdx.x) * kBlock + threadIdx.x;
  const int lane = threadIdx.x % kWarp;
  const int64_t own = i < rows ? sorted[i] : examples;
  int64_t before = __shfl_sync(kWholeWarp, own, lane == 0 ? 0 : lane - 1);
  if (lane == 0) before = i > 0 && i <= rows ? sorted[i - 1] : -1;
  if (i <= rows) {
    for (int64_t e = before < 0 ? 0 : before + 1; e <= own && e <= examples; ++e) starts[e] = i;
  }
  const int unknown = sum_warp(i < rows && (own < kPadding || own >= examples) ? 1 : 0);
  if (lane == 0 && unknown > 0 && skipped != nullptr) count_skipped(skipped, kBadIndex, unknown);
}

// stats [B, kStats] -> partial [examples, parts], or the result where there is one part. A warp sums one of the `parts`
// of an example's rows.
template <int kWidth>
__global__ void __launch_bounds__(kBlock, 4)
    reduce_rows_kernel(RowsView rows, const int64_t* order, const int64_t* starts, int64_t parts, Sum* partial,
                       float* out, int64_t* out_labels) {
  const int lane = threadIdx.x % kWarp;
  const int64_t warp = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  const int64_t example = warp / parts, part = warp % parts;
  if (example >= rows.examples) return;
  const int64_t each = rows.rows / rows.examples;
  const int64_t first = starts ? starts[example] : example * each;
  const int64_t number = starts ? starts[example + 1] - first : each;
  Sum sum;
  const int64_t end = first + number * (part + 1) / parts;
#pragma unroll 2
  for (int64_t i = first + number * part / parts + lane; i < end; i += kWarp) {
    const int64_t row = order ? order[i] : i;
    double weight = rows.weight ? double(rows.weight[row]) : 1.0;
    float stats[kStats];
#pragma unroll
    for (int s = 0; s < kStats; s += kWidth) {
      const auto pack = load<kWidth>(rows.stats + row * kStats + s);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) stats[s + j] = pack.lane[j];
    }
    if (weight == 0.0 || is_no_row(stats)) continue;
    if (weight < 0) weight = NAN;  // one that nobody has looked at; it shows in the mean
    sum.weight += weight;
#pragma unroll
    for (int s = 0; s < kStats; ++s) sum.stats[s] += weight * double(stats[s]);
    ++sum.rows;
    sum.last = row;
  }
  sum.sum_lanes();
  if (lane != 0) return;
  if (parts > 1) {
    partial[warp] = sum;
  } else {
    sum.finish(rows.labels, out + example * kStats, out_labels + example);
  }
}

// partial [examples, parts]. A warp an example.
__global__ void __launch_bounds__(kBlock, 4)
    reduce_parts_kernel(const Sum* partial, int64_t examples, int64_t parts, const int64_t* labels, float* out,
                        int64_t* out_labels) {
  const int lane = threadIdx.x % kWarp;
  const int64_t example = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (example >= examples) return;
  Sum sum;
  for (int64_t p = lane; p < parts; p += kWarp) sum.add(partial[example * parts + p]);
  sum.sum_lanes();
  if (lane == 0) sum.finish(labels, out + example * kStats, out_labels + example);
}

// So many that each has about 512 rows, where examples are about as long as each other.
int64_t parts_of(const RowsView& rows) {
  constexpr int64_t kRowsOfPart = 512, kMost = 1024;
  const int64_t each = rows.rows / std::max<int64_t>(rows.examples, 1);
  return std::min(std::max<int64_t>(each / kRowsOfPart, 1), kMost);
}

int64_t start_bytes(const RowsView& rows) { return rows.owner ? (rows.examples + 1) * int64_t(sizeof(int64_t)) : 0; }

}  // namespace

int64_t reduce_scratch(const RowsView& rows) {
  const int64_t parts = parts_of(rows);
  return start_bytes(rows) + (parts > 1 ? rows.examples * parts * int64_t(sizeof(Sum)) : 0);
}

int reduce_rows(const RowsView& rows, const int64_t* sorted, const int64_t* order, void* scratch, float* out,
                int64_t* out_labels, int64_t* skipped, void* stream) {
  if (!aligned(out)) return cudaErrorInvalidValue;
  int64_t* const starts = rows.owner ? static_cast<int64_t*>(scratch) : nullptr;
  Sum* const partial = reinterpret_cast<Sum*>(static_cast<char*>(scratch) + start_bytes(rows));
  if (starts != nullptr) {
    DP_LAUNCH(find_owners_kernel, unsigned(rows.rows / kBlock + 1), kBlock, 0, stream, sorted, rows.rows, rows.examples,
              starts, skipped);
  }
  if (rows.examples == 0) return cudaGetLastError();
  const int64_t parts = parts_of(rows);
  const unsigned blocks = blocks_for(rows.examples * parts);
  if (aligned(rows.stats)) {
    DP_LAUNCH((reduce_rows_kernel<4>), blocks, kBlock, 0, stream, rows, order, starts, parts, partial, out, out_labels);
  } else {
    DP_LAUNCH((reduce_rows_kernel<1>), blocks, kBlock, 0, stream, rows, order, starts, parts, partial, out, out_labels);
  }
  if (parts > 1) {
    DP_LAUNCH(reduce_parts_kernel, blocks_for(rows.examples), kBlock, 0, stream, partial, rows.examples, parts,
              rows.labels, out, out_labels);
  }
  return cudaGetLastError();
}

}  // namespace dp::cuda
