// Warp-wide helpers. A kernel here gives one warp (or one block) to one row of the batch.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#define DP_LAUNCH(kernel, grid, block, stream, ...) \
  kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)

namespace dp::cuda {

constexpr unsigned kWholeWarp = 0xffffffffu;
constexpr int kWarp = 32;

template <class T, class Combine>
__device__ __forceinline__ T reduce_warp(T value, Combine combine) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = combine(value, __shfl_xor_sync(kWholeWarp, value, offset));
  }
  return value;
}

template <class T>
__device__ __forceinline__ T sum_warp(T value) {
  return reduce_warp(value, [](T a, T b) { return a + b; });
}

// The first row at or after `from` that presents the same example as `row`; `rows` if none. All lanes
// of the warp call it together and get the same answer.
__device__ __forceinline__ int64_t next_presentation(const int64_t* index, int64_t example, int64_t from, int64_t rows,
                                                     int lane) {
  for (int64_t start = from; start < rows; start += kWarp) {
    const int64_t row = start + lane;
    const unsigned hits = __ballot_sync(kWholeWarp, row < rows && index[row] == example);
    if (hits != 0) return start + __ffs(int(hits)) - 1;
  }
  return rows;
}

__device__ __forceinline__ void count_skipped(int64_t* skipped, int kind) {
  atomicAdd(reinterpret_cast<unsigned long long*>(skipped) + kind, 1ull);
}

}  // namespace dp::cuda
