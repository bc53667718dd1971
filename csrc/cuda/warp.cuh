// Warp-wide helpers. A kernel here gives one warp (or one block) to one row of the batch.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// Macros, so that the tests can run the same files on a CPU.
#ifndef DP_LAUNCH
#define DP_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#define DP_DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

namespace dp::cuda {

constexpr unsigned kWholeWarp = 0xffffffffu;
constexpr int kWarp = 32;

// Of kernels that give one warp to one row.
constexpr int kWarpsPerBlock = 4;
constexpr int kBlock = kWarpsPerBlock * kWarp;
inline unsigned blocks_for(int64_t rows) { return unsigned((rows + kWarpsPerBlock - 1) / kWarpsPerBlock); }

template <class T, class Combine>
__device__ __forceinline__ T reduce_warp(T value, Combine combine) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = combine(value, __shfl_xor_sync(kWholeWarp, value, offset));
  }
  return value;
}

template <class T>
__device__ __forceinline__ T sum_warp(T value) {
  return reduce_warp(value, [](T a, T b) { return a + b; });
}

__device__ __forceinline__ void count_skipped(int64_t* skipped, int kind, int number = 1) {
  atomicAdd(reinterpret_cast<unsigned long long*>(skipped) + kind, static_cast<unsigned long long>(number));
}

}  // namespace dp::cuda
