// Several adjacent elements, moved in pieces of 16 bytes where their size allows.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "../core/views.h"

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

// Whether rows of logits can be read kPackWidth<T> classes at a time in 16-byte pieces.
template <class T>
bool packed(const LogitsView& logits, const T* data) {
  bool fits = logits.class_stride == 1 && logits.classes % kPackWidth<T> == 0 && aligned(data);
  fits = fits && (logits.positions == 1 || logits.row_stride * sizeof(T) % 16 == 0);
  for (int d = 0; d < logits.outer_dims; ++d) fits = fits && logits.outer_stride[d] * sizeof(T) % 16 == 0;
  return fits;
}

constexpr int64_t kAlwaysAllowed = 48 * 1024;  // bytes of shared memory

// Lets the kernel have the shared memory that it wants, up to what the device has. Returns the number of bytes.
template <class Kernel>
int64_t shared_memory(Kernel kernel, int64_t wanted) {
  if (wanted <= kAlwaysAllowed) return wanted;
  int device = 0, limit = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess) {
    limit = int(kAlwaysAllowed);
  }
  const int bytes = int(std::min<int64_t>(wanted, limit / 32 * 32));
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) != cudaSuccess) {
    cudaGetLastError();  // what does not fit is read again instead
    return kAlwaysAllowed;
  }
  return bytes;
}

}  // namespace dp::cuda
