// A kernel that turns each block's part of an array around, and everything that can be wrong with it. The tests use it
// to see that the emulator and the sanitizers find each fault.
//
//   faults FAULT ORDER     prints "right", "wrong" or "not launched"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cuda_runtime.h"

namespace {

constexpr int kThreads = 64, kBlocks = 3;

struct Fault {
  const char* name;
  bool is(const char* other) const { return strcmp(name, other) == 0; }
};

__global__ void reverse_kernel(const float* in, float* out, Fault fault) {
  DP_DYNAMIC_SHARED(float, dynamic);
  __shared__ float fixed[kThreads];
  float* const held = blockIdx.x % 2 ? dynamic : fixed;
  const int i = int(threadIdx.y * blockDim.x + threadIdx.x);
  const int first = int(blockIdx.x) * kThreads;

  if (fault.is("leaves early") && i == 5) return;
  const bool overrun = fault.is(held == fixed ? "static overrun" : "dynamic overrun");
  held[i + overrun] = in[first + i];
  if (fault.is("divergent barriers") && i < 32) {
    __syncthreads();
  } else if (!fault.is("no barrier")) {
    __syncthreads();
  }
  const float value = held[kThreads - 1 - i];
  if (fault.is("divergent shuffle") && i % 2) __shfl_sync(0xffffffffu, value, 0);

  // Each lane hands its value to its neighbour and back: once by a shuffle, once through memory.
  const float neighbour = __shfl_xor_sync(0xffffffffu, value, 1);
  float* const swapped = (blockIdx.x % 2 ? fixed : dynamic) + i;
  if (!fault.is("uninitialised")) *swapped = neighbour;
  if (!fault.is("no warp barrier")) __syncwarp();
  const float back = *(i % 2 ? swapped - 1 : swapped + 1);

  out[fault.is("same place") ? i : first + i + fault.is("global overrun")] = back;
  if (fault.is("misaligned")) out[first + i] = reinterpret_cast<const float4*>(in + 1)->x;
}

}  // namespace

int main(int, char** argv) {
  const Fault fault{argv[1]};
  emulator::device.order = emulator::Order(atoi(argv[2]));
  std::vector<float> in(kBlocks * kThreads), out(in.size());
  for (size_t i = 0; i < in.size(); ++i) in[i] = float(i);
  const size_t shared_bytes = fault.is("too much shared memory") ? 48 * 1024 + 4 : kThreads * sizeof(float);
  DP_LAUNCH(reverse_kernel, kBlocks, dim3(32, kThreads / 32), shared_bytes, nullptr, in.data(), out.data(), fault);
  if (cudaGetLastError() != cudaSuccess) {
    puts("not launched");
    return 0;
  }
  bool right = true;
  for (int i = 0; i < kBlocks * kThreads; ++i) {
    right = right && out[i] == float(i / kThreads * kThreads + kThreads - 1 - i % kThreads);
  }
  puts(right ? "right" : "wrong");
}
