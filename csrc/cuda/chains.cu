#include "chains.cuh"
#include "launch.h"
#include "packs.cuh"
#include "warp.cuh"

namespace dp::cuda {
namespace {

// The link of a row between two others in the order of their examples, where rows of the same example are in batch
// order.
__device__ __forceinline__ uint32_t link_of(bool preceded, bool followed, uint64_t next) {
  return (preceded ? kPreceded : 0u) | (followed ? uint32_t(next) : kLast);
}

// One block, with a thread for each row and a power of two of them: a bitonic network sorts keys of example and row.
// Neighbours in a warp compare their keys without a barrier.
__global__ void __launch_bounds__(kFewRows, 1)
    chain_few_rows_kernel(const int64_t* index, int rows, int64_t examples, uint32_t* links, int32_t* step) {
  constexpr uint64_t kNobody = ~uint64_t(0) / kFewRows;  // rows of no example
  __shared__ uint64_t keys[kFewRows];
  const unsigned i = threadIdx.x;
  if (i == 0 && step != nullptr) ++*step;
  const int64_t example = int(i) < rows ? index[i] : -1;
  uint64_t key = (example >= 0 && example < examples ? uint64_t(example) : kNobody) * kFewRows + i;
  for (unsigned run = 2; run <= blockDim.x; run *= 2) {
    for (unsigned distance = run / 2; distance > 0; distance /= 2) {
      uint64_t other;
      if (distance < kWarp) {
        other = __shfl_xor_sync(kWholeWarp, key, int(distance));
      } else {
        keys[i] = key;
        __syncthreads();
        other = keys[i ^ distance];
        __syncthreads();
      }
      const bool takes_smaller = ((i & distance) == 0) == ((i & run) == 0);
      key = (key < other) == takes_smaller ? key : other;
    }
  }
  keys[i] = key;
  __syncthreads();
  const uint64_t own = key / kFewRows, row = key % kFewRows;
  const uint64_t before = i > 0 ? keys[i - 1] : ~key, after = i + 1 < blockDim.x ? keys[i + 1] : ~key;
  const bool any = own != kNobody;
  if (row < uint64_t(rows)) {
    links[row] = link_of(any && before / kFewRows == own, any && after / kFewRows == own, after % kFewRows);
  }
}

constexpr int kChained = 4;  // adjacent rows a lane takes

// sorted [B]: the index in ascending order; order [B]: the row that each came from. Lanes hand their ends to their
// neighbours.
__global__ void __launch_bounds__(kBlock)
    chain_sorted_rows_kernel(const int64_t* sorted, const int64_t* order, int64_t rows, int64_t examples,
                             uint32_t* links, int32_t* step) {
  if (blockIdx.x == 0 && threadIdx.x == 0 && step != nullptr) ++*step;
  const int lane = threadIdx.x % kWarp;
  const int64_t first = (int64_t(blockIdx.x) * kBlock + threadIdx.x) * kChained;
  Pack<int64_t, kChained> example = {}, row = {};
  if (first + kChained <= rows) {
    example = load<kChained>(sorted + first);
    row = load<kChained>(order + first);
  } else {
#pragma unroll
    for (int j = 0; j < kChained; ++j) {
      if (first + j < rows) example.lane[j] = sorted[first + j], row.lane[j] = order[first + j];
    }
  }
  int64_t before = __shfl_sync(kWholeWarp, example.lane[kChained - 1], lane == 0 ? 0 : lane - 1);
  int64_t after = __shfl_sync(kWholeWarp, example.lane[0], lane == kWarp - 1 ? lane : lane + 1);
  int64_t next = __shfl_sync(kWholeWarp, row.lane[0], lane == kWarp - 1 ? lane : lane + 1);
  if (lane == 0 && first > 0 && first < rows) before = sorted[first - 1];
  if (lane == kWarp - 1 && first + kChained < rows) {
    after = sorted[first + kChained];
    next = order[first + kChained];
  }
#pragma unroll
  for (int j = 0; j < kChained; ++j) {
    const int64_t i = first + j, own = example.lane[j];
    if (i >= rows) return;
    if (j > 0) before = example.lane[j - 1];
    const bool last = j + 1 == kChained, any = own >= 0 && own < examples;
    const bool preceded = any && i > 0 && before == own;
    const bool followed = any && i + 1 < rows && (last ? after : example.lane[(j + 1) % kChained]) == own;
    links[row.lane[j]] = link_of(preceded, followed, uint64_t(last ? next : row.lane[(j + 1) % kChained]));
  }
}

}  // namespace

int chain_few_rows(const int64_t* index, int64_t rows, int64_t examples, uint32_t* links, int32_t* step, void* stream) {
  if (rows == 0 && step == nullptr) return cudaSuccess;
  if (rows > kFewRows) return cudaErrorInvalidValue;
  unsigned threads = kWarp;
  while (threads < rows) threads *= 2;
  DP_LAUNCH(chain_few_rows_kernel, 1, threads, 0, stream, index, int(rows), examples, links, step);
  return cudaGetLastError();
}

int chain_sorted_rows(const int64_t* sorted, const int64_t* order, int64_t rows, int64_t examples, uint32_t* links,
                      int32_t* step, void* stream) {
  if (rows == 0 || rows >= kLast || !aligned(sorted) || !aligned(order)) return cudaErrorInvalidValue;
  const int64_t each = int64_t(kBlock) * kChained;
  DP_LAUNCH(chain_sorted_rows_kernel, unsigned((rows + each - 1) / each), kBlock, 0, stream, sorted, order, rows,
            examples, links, step);
  return cudaGetLastError();
}

}  // namespace dp::cuda
