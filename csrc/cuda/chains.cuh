// Rows of a batch that present the same example, chained in batch order. The warp (or block) of the first row handles
// them all, one after the other: deterministic, and no two warps touch one state.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace dp::cuda {

// The link of a row: the next row of its example, and whether an earlier one precedes it.
constexpr uint32_t kPreceded = 0x80000000u, kLast = 0x7fffffffu;

// The rows that present the same example as `head`; none if an earlier row does. Every lane asks for itself.
class Presentations {
 public:
  __device__ __forceinline__ Presentations(const uint32_t* links, int64_t head) : links_(links), link_(links[head]) {
    row_ = link_ & kPreceded ? kLast : uint32_t(head);
  }
  __device__ __forceinline__ bool left() const { return row_ != kLast; }
  __device__ __forceinline__ int64_t row() const { return row_; }
  __device__ __forceinline__ void next() {
    row_ = link_ & kLast;
    if (left()) link_ = links_[row_];
  }

 private:
  const uint32_t* links_;
  uint32_t link_, row_;
};

}  // namespace dp::cuda
