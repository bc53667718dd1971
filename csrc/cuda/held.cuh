// Rows that wait in shared memory, for kernels that look at them more than once.
#pragma once

#include "packs.cuh"
#include "warp.cuh"

namespace dp::cuda {

// A row that one warp reads once: its first `held` elements wait in shared memory, and only those beyond its size are
// read again.
template <class T>
struct HeldRow {
  const T* z;
  T* shared;
  int64_t classes, held;

  template <int kWidth>
  __device__ __forceinline__ Pack<T, kWidth> read(int64_t c) const {
    const auto pack = load<kWidth>(z + c);
    if (c < held) store(shared + c, pack);
    return pack;
  }
  template <int kWidth>
  __device__ __forceinline__ Pack<T, kWidth> at(int64_t c) const {
    return c < held ? load<kWidth>(shared + c) : load<kWidth>(z + c);
  }
};

// Warps of a block, each with a row, and how many of its classes each of them holds: a multiple of 8.
struct Shape {
  int warps;
  int64_t held;
};

template <class Kernel>
Shape shape_for(Kernel kernel, int64_t classes, int64_t bytes_per_class) {
  constexpr int64_t kMultiple = 8;
  const int64_t wanted = (classes + kMultiple - 1) / kMultiple * kMultiple * bytes_per_class;
  int warps = kWarpsPerBlock;
  while (warps > 1 && warps * wanted > kAlwaysAllowed) warps /= 2;
  return {warps, shared_memory(kernel, warps * wanted) / warps / bytes_per_class / kMultiple * kMultiple};
}

}  // namespace dp::cuda
