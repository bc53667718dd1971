// The part of CUDA that the kernels use, for a machine without a GPU: with this folder first on the include path,
// the .cu files compile unchanged as C++. emulator.cpp runs their threads.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

#ifdef __SANITIZE_ADDRESS__
#define __shared__ static  // AddressSanitizer guards both ends of a static array
#else
#define __shared__ static thread_local  // a segment with known bounds, which the emulator clears for each block
#endif

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
// Vectors, so that a compiler takes no access apart.
typedef unsigned uint2 __attribute__((vector_size(8)));
typedef unsigned uint4 __attribute__((vector_size(16)));
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };
using cudaStream_t = void*;

namespace emulator {

enum class Order { kForward, kReverse, kShuffled };

struct Device {
  Order order = Order::kForward;  // in which blocks, warps and lanes get their turn
  int shared_optin = 64 * 1024;   // bytes that a kernel may ask for
  int every = 1;                 // of a launch of many blocks, only each so-manieth runs: enough to count what it reads
  int shared_limit = 48 * 1024;  // bytes that the next launch may have
  cudaError_t last_error = cudaSuccess;
};
extern Device device;

void launch(const char* kernel, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread);
void* dynamic_shared();

int lane();
size_t index_in_block();

// Threads meet only if they call from the same line of code. As in CUDA, a shuffle or ballot does not order memory.
void sync_block(int line);
bool any_in_block(bool value, int line);
void sync_warp(unsigned mask, int line);
uint64_t shuffle(uint64_t value, int source_lane, unsigned mask, int line);
unsigned ballot(bool value, unsigned mask, int line);

}  // namespace emulator

#define DP_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  (static_cast<void>(stream), emulator::launch(#kernel, grid, block, shared_bytes, [&] { kernel(__VA_ARGS__); }))
#define DP_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(emulator::dynamic_shared())

inline void __syncthreads(int line = __builtin_LINE()) { emulator::sync_block(line); }

inline int __syncthreads_or(int predicate, int line = __builtin_LINE()) {
  return emulator::any_in_block(predicate != 0, line);
}

inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) { emulator::sync_warp(mask, line); }

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int line = __builtin_LINE()) {
  uint64_t bits = 0;
  static_assert(sizeof value <= sizeof bits);
  memcpy(&bits, &value, sizeof value);
  bits = emulator::shuffle(bits, source % 32, mask, line);
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int line = __builtin_LINE()) {
  return __shfl_sync(mask, value, emulator::lane() ^ lane_mask, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return emulator::ballot(predicate != 0, mask, line);
}

inline int __ffs(int x) { return __builtin_ffs(x); }

template <class T>
T __ldg(const T* address) {
  return *address;
}

inline unsigned long long atomicAdd(unsigned long long* address, unsigned long long value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int bytes) {
  if (bytes > emulator::device.shared_optin) return emulator::device.last_error = cudaErrorInvalidValue;
  emulator::device.shared_limit = bytes;
  return cudaSuccess;
}

inline cudaError_t cudaGetDevice(int* index) {
  *index = 0;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 4 : emulator::device.shared_optin;
  return cudaSuccess;
}

inline cudaError_t cudaGetLastError() {
  const cudaError_t error = emulator::device.last_error;
  emulator::device.last_error = cudaSuccess;
  return error;
}

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid launch";
}
