#include <cmath>

#include "../core/welford.h"
#include "launch.h"
#include "warp.cuh"

namespace dp::cuda {
namespace {

constexpr int kThreads = 256;

template <class Real, class T>
__device__ Real channel_mean(const T* pixel, const GradientsView& g, Real scale) {
  Real sum = 0;
  for (int64_t c = 0; c < g.channels; ++c) {
    const T x = pixel[c * g.channel_stride];
    sum += sizeof(Real) == 8 ? Real(to_double(x)) : Real(to_float(x));
  }
  return sum * (scale / Real(g.channels));
}

// State of examples: count [N], mean and m2 [N, P]; gradients [B, C, P]; scale [B] or null. The block of an
// example's first row handles all of its rows in batch order.
template <class T>
__global__ void __launch_bounds__(kThreads)
    record_gradients_kernel(int32_t* count, float* mean, float* m2, int64_t examples, const int64_t* index,
                            const T* data, GradientsView g, const float* scale, int64_t* skipped) {
  const int64_t head = blockIdx.x;
  const int64_t example = index[head];
  if (example < 0 || example >= examples) {
    if (threadIdx.x == 0) count_skipped(skipped, kBadIndex);
    return;
  }
  const int lane = threadIdx.x % kWarp;
  if (next_presentation(index, example, 0, head, lane) < head) return;
  mean += example * g.pixels;
  m2 += example * g.pixels;
  int32_t presentations = count[example];
  for (int64_t row = head; row < g.rows; row = next_presentation(index, example, row + 1, g.rows, lane)) {
    const float factor = scale ? scale[row] : 1.0f;
    if (factor == 0.0f) continue;
    const T* gradient = data + row * g.row_stride;
    // The whole row is looked at first, so that one bad pixel leaves out the row and not a part of it.
    float probe = 0.0f;
    for (int64_t p = threadIdx.x; p < g.pixels; p += kThreads) {
      const float signal = channel_mean(gradient + p * g.pixel_stride, g, factor);
      probe += signal - signal;
    }
    if (__syncthreads_or(probe != 0.0f)) {
      if (threadIdx.x == 0) count_skipped(skipped, kNotFinite);
      continue;
    }
    const float share = 1.0f / float(++presentations);
    for (int64_t p = threadIdx.x; p < g.pixels; p += kThreads) {
      welford(mean[p], m2[p], channel_mean(gradient + p * g.pixel_stride, g, factor), share);
    }
  }
  __syncthreads();  // every thread has read the count
  if (threadIdx.x == 0) count[example] = presentations;
}

// gradients [K, B, C, P] -> out [B], one block a row, double precision because nothing bounds the offset of
// the gradients against their spread.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gradient_variance_kernel(const T* data, GradientsView g, int64_t checkpoints, int64_t checkpoint_stride,
                             bool take_root, float* out) {
  const int64_t row = blockIdx.x;
  double total = 0;
  for (int64_t p = threadIdx.x; p < g.pixels; p += kThreads) {
    const T* pixel = data + row * g.row_stride + p * g.pixel_stride;
    double mean = 0, m2 = 0;
    for (int64_t k = 0; k < checkpoints; ++k) {
      welford(mean, m2, channel_mean(pixel + k * checkpoint_stride, g, 1.0), 1.0 / double(k + 1));
    }
    const double variance = m2 / double(checkpoints);
    total += take_root ? sqrt(variance) : variance;
  }
  __shared__ double partial[kThreads / kWarp];
  total = sum_warp(total);
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = total;
  __syncthreads();
  if (threadIdx.x == 0) {
    total = 0;
    for (double value : partial) total += value;
    out[row] = float(total / double(g.pixels));
  }
}

}  // namespace

int record_gradients(int32_t* count, float* mean, float* m2, int64_t examples, const int64_t* index,
                     const GradientsView& g, const float* scale, int64_t* skipped, void* stream) {
  if (g.rows == 0) return cudaSuccess;
  visit_elements(g.data, g.type, [&](auto* data) {
    DP_LAUNCH(record_gradients_kernel, unsigned(g.rows), kThreads, stream, count, mean, m2, examples, index, data, g,
              scale, skipped);
  });
  return cudaGetLastError();
}

int gradient_variance(const GradientsView& g, int64_t checkpoints, int64_t checkpoint_stride, bool take_root,
                      float* out, void* stream) {
  if (g.rows == 0) return cudaSuccess;
  visit_elements(g.data, g.type, [&](auto* data) {
    DP_LAUNCH(gradient_variance_kernel, unsigned(g.rows), kThreads, stream, data, g, checkpoints, checkpoint_stride,
              take_root, out);
  });
  return cudaGetLastError();
}

}  // namespace dp::cuda
