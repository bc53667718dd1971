// Several adjacent elements, moved in pieces of 16 bytes where their size allows.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../core/numbers.h"

namespace dp::cuda {

template <class T, int kWidth>
struct Pack {
  static constexpr int kBytes = int(sizeof(T)) * kWidth;
  static constexpr int kPiece = kBytes % 16 == 0 ? 16 : kBytes % 8 == 0 ? 8 : int(sizeof(T));
  T lane[kWidth];
};

template <int kBytes>
struct Piece;
template <>
struct Piece<16> {
  using Type = uint4;
};
template <>
struct Piece<8> {
  using Type = uint2;
};
template <>
struct Piece<4> {
  using Type = uint32_t;
};
template <>
struct Piece<2> {
  using Type = uint16_t;
};

// `at` is aligned to the pack's pieces.
template <int kWidth, class T>
__device__ __forceinline__ Pack<T, kWidth> load(const T* at) {
  using P = Pack<T, kWidth>;
  using Type = typename Piece<P::kPiece>::Type;
  P pack;
#pragma unroll
  for (int i = 0; i < P::kBytes / P::kPiece; ++i) {
    const Type piece = reinterpret_cast<const Type*>(at)[i];
    memcpy(reinterpret_cast<char*>(&pack) + i * P::kPiece, &piece, P::kPiece);
  }
  return pack;
}

template <int kWidth, class T>
__device__ __forceinline__ void store(T* at, const Pack<T, kWidth>& pack) {
  using P = Pack<T, kWidth>;
  using Type = typename Piece<P::kPiece>::Type;
#pragma unroll
  for (int i = 0; i < P::kBytes / P::kPiece; ++i) {
    Type piece;
    memcpy(&piece, reinterpret_cast<const char*>(&pack) + i * P::kPiece, P::kPiece);
    reinterpret_cast<Type*>(at)[i] = piece;
  }
}

// Elements of T that one thread takes at a time: 16 bytes, and never less than 16 bytes of float state.
template <class T>
constexpr int kPackWidth = sizeof(T) == 2 ? 8 : 4;

inline bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace dp::cuda
