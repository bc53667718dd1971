#include <algorithm>
#include <cmath>

#include "../core/moments.h"
#include "chains.cuh"
#include "launch.h"
#include "packs.cuh"
#include "warp.cuh"

namespace dp::cuda {
namespace {

constexpr int kMaxThreads = 512;  // 1024 would leave 64 registers a thread, too few for the widest packs

template <class Real, class T>
__device__ __forceinline__ Real as(T x) {
  return sizeof(Real) == 8 ? Real(to_double(x)) : Real(to_float(x));
}

// The signal of one pixel: the mean over channels times the row's scale (both in `factor`). A pixel that does
// not exist is NaN, so that its row is left out.
template <class Real, class T>
__device__ __forceinline__ Real read_pixel(const T* row, const GradientsView& g, int64_t pixel, Real factor) {
  if (pixel < 0 || pixel >= g.pixels) return Real(NAN);
  const T* at = row + pixel * g.pixel_stride;
  Real sum = 0;
#pragma unroll 4
  for (int64_t c = 0; c < g.channels; ++c) sum += as<Real>(at[c * g.channel_stride]);
  return sum * factor;
}

// kWidth adjacent pixels from `p` on, in any layout that `packed` accepts. Loads come before sums, so that
// they are in flight together.
template <int kWidth, class Real, class T>
__device__ __forceinline__ Pack<Real, kWidth> read_pack(const T* row, const GradientsView& g, int64_t p, Real factor) {
  Pack<Real, kWidth> signal;
  if (g.pixel_stride == 3) {  // channels_last
    const auto pixels = load<3 * kWidth>(row + 3 * p);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      signal.lane[i] =
          (as<Real>(pixels.lane[3 * i]) + as<Real>(pixels.lane[3 * i + 1]) + as<Real>(pixels.lane[3 * i + 2])) * factor;
    }
  } else if (g.channels == 3) {
    const auto red = load<kWidth>(row + p), green = load<kWidth>(row + p + g.channel_stride),
               blue = load<kWidth>(row + p + 2 * g.channel_stride);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      signal.lane[i] = (as<Real>(red.lane[i]) + as<Real>(green.lane[i]) + as<Real>(blue.lane[i])) * factor;
    }
  } else {
    signal = {};
#pragma unroll 4
    for (int64_t c = 0; c < g.channels; ++c) {
      const auto plane = load<kWidth>(row + p + c * g.channel_stride);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) signal.lane[i] += as<Real>(plane.lane[i]);
    }
#pragma unroll
    for (int i = 0; i < kWidth; ++i) signal.lane[i] *= factor;
  }
  return signal;
}

template <int kWidth, class Real, class T>
__device__ __forceinline__ Pack<Real, kWidth> read_signal(const T* row, const GradientsView& g, const int64_t* subset,
                                                          int64_t p, Real factor) {
  if constexpr (kWidth == 1) {
    return {{read_pixel(row, g, subset ? subset[p] : p, factor)}};
  } else {
    return read_pack<kWidth>(row, g, p, factor);
  }
}

// Whether pixels of these gradients can be read kWidth at a time in 16-byte pieces.
template <class T>
bool packed(const GradientsView& g, int kWidth) {
  const bool planar = g.pixel_stride == 1 && (g.channels == 1 || g.channel_stride * sizeof(T) % 16 == 0);
  const bool interleaved = g.pixel_stride == 3 && g.channels == 3 && g.channel_stride == 1;
  return (planar || interleaved) && g.pixels % kWidth == 0 && aligned(g.data) &&
         (g.rows == 1 || g.row_stride * sizeof(T) % 16 == 0);
}

// One block an example: the block of its first row handles all of its rows in batch order, so that no two
// blocks touch one state. Each row is read once: its signal waits in shared memory (its first `held` pixels;
// only rows beyond the size of shared memory are read again) until all of it is known to be finite.
template <int kWidth, class T, class Narrow>
__global__ void __launch_bounds__(kMaxThreads, 1)
    record_gradients_kernel(MomentsView state, Narrow* m2, const int64_t* index, const uint32_t* links, const T* data,
                            GradientsView g, const float* scale, const int64_t* subset, int64_t held,
                            int64_t* skipped) {
  DP_DYNAMIC_SHARED(float4, shared);
  float* signal = reinterpret_cast<float*>(shared);
  const int64_t head = blockIdx.x;
  const int64_t example = index[head];
  if (example < 0 || example >= state.examples) {
    if (threadIdx.x == 0) count_skipped(skipped, kBadIndex);
    return;
  }
  Presentations presentations(links, head);
  if (!presentations.left()) return;
  float* mean = state.mean + example * state.pixels;
  m2 += example * state.pixels;
  const int64_t first = int64_t(threadIdx.x) * kWidth, step = int64_t(blockDim.x) * kWidth;
  int32_t count = state.count[example];
  for (; presentations.left(); presentations.next()) {
    const int64_t row = presentations.row();
    const float weight = scale ? scale[row] : 1.0f;
    if (weight == 0.0f) continue;
    const T* gradient = data + row * g.row_stride;
    const float factor = weight / float(g.channels);
    float probe = 0.0f;
#pragma unroll 2
    for (int64_t p = first; p < state.pixels; p += step) {
      const auto pack = read_signal<kWidth>(gradient, g, subset, p, factor);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) probe += pack.lane[i] - pack.lane[i];  // NaN where not finite
      if (p < held) store(signal + p, pack);
    }
    if (__syncthreads_or(probe != 0.0f)) {
      if (threadIdx.x == 0) count_skipped(skipped, kNotFinite);
      continue;
    }
    const float share = 1.0f / float(++count);
    const Rounding round(example, count);
#pragma unroll 2
    for (int64_t p = first; p < state.pixels; p += step) {
      auto mean_pack = load<kWidth>(mean + p);
      auto m2_pack = load<kWidth>(m2 + p);
      const auto pack = p < held ? load<kWidth>(signal + p) : read_signal<kWidth>(gradient, g, subset, p, factor);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        float sum = to_float(m2_pack.lane[i]);
        welford(mean_pack.lane[i], sum, pack.lane[i], share);
        store_m2(m2_pack.lane[i], sum, round, uint32_t(p + i));
      }
      store(mean + p, mean_pack);
      store(m2 + p, m2_pack);
    }
  }
  __syncthreads();  // every thread has read the count
  if (threadIdx.x == 0) state.count[example] = count;
}

// One block an example. state and other: count [N], mean and M2 [N, P].
template <int kWidth, class Narrow, class Other>
__global__ void __launch_bounds__(kMaxThreads, 1)
    merge_moments_kernel(MomentsView state, Narrow* m2, MomentsView other, const Other* other_m2) {
  const int64_t example = blockIdx.x;
  const int32_t count = state.count[example], other_count = other.count[example];
  if (other_count == 0) return;
  const float share = float(other_count) / float(count + other_count);
  const Rounding round(example, count + other_count);
  const int64_t first = example * state.pixels, step = int64_t(blockDim.x) * kWidth;
#pragma unroll 2
  for (int64_t p = int64_t(threadIdx.x) * kWidth; p < state.pixels; p += step) {
    auto mean_pack = load<kWidth>(state.mean + first + p);
    auto m2_pack = load<kWidth>(m2 + first + p);
    const auto other_mean_pack = load<kWidth>(other.mean + first + p);
    const auto other_m2_pack = load<kWidth>(other_m2 + first + p);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      float sum = to_float(m2_pack.lane[i]);
      merge(mean_pack.lane[i], sum, float(count), other_mean_pack.lane[i], to_float(other_m2_pack.lane[i]), share);
      store_m2(m2_pack.lane[i], sum, round, uint32_t(p + i));
    }
    store(state.mean + first + p, mean_pack);
    store(m2 + first + p, m2_pack);
  }
  __syncthreads();  // every thread has read the counts
  if (threadIdx.x == 0) state.count[example] = count + other_count;
}

constexpr int kVarianceThreads = 256;

// gradients [K, B, C, P] -> out [B], one block a row. Double precision, because nothing bounds the offset of the
// gradients against their spread.
template <int kWidth, class T>
__global__ void __launch_bounds__(kVarianceThreads, 2)
    gradient_variance_kernel(const T* data, GradientsView g, int64_t checkpoints, int64_t checkpoint_stride,
                             bool take_root, float* out) {
  const T* row = data + blockIdx.x * g.row_stride;
  double total = 0;
  for (int64_t p = int64_t(threadIdx.x) * kWidth; p < g.pixels; p += kVarianceThreads * kWidth) {
    double mean[kWidth] = {}, m2[kWidth] = {};
#pragma unroll 2
    for (int64_t k = 0; k < checkpoints; ++k) {
      const auto pack = read_signal<kWidth>(row + k * checkpoint_stride, g, nullptr, p, 1.0 / double(g.channels));
      const double share = 1.0 / double(k + 1);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) welford(mean[i], m2[i], pack.lane[i], share);
    }
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const double variance = m2[i] / double(checkpoints);
      total += take_root ? sqrt(variance) : variance;
    }
  }
  __shared__ double partial[kVarianceThreads / kWarp];
  total = sum_warp(total);
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = total;
  __syncthreads();
  if (threadIdx.x == 0) {
    total = 0;
    for (double value : partial) total += value;
    out[blockIdx.x] = float(total / double(g.pixels));
  }
}

unsigned threads_for(int64_t pixels, int kWidth) {
  const int64_t packs = (pixels + kWidth - 1) / kWidth;
  return unsigned(std::min<int64_t>((packs + kWarp - 1) / kWarp * kWarp, kMaxThreads));
}

template <int kWidth, class T, class Narrow>
void launch_record(const MomentsView& state, Narrow* m2, const int64_t* index, const uint32_t* links, const T* data,
                   const GradientsView& g, const float* scale, const int64_t* subset, int64_t* skipped, void* stream) {
  const auto kernel = record_gradients_kernel<kWidth, T, Narrow>;
  const int64_t held = shared_memory(kernel, state.pixels * int64_t(sizeof(float))) / int64_t(sizeof(float));
  DP_LAUNCH(kernel, unsigned(g.rows), threads_for(state.pixels, kWidth), held * sizeof(float), stream, state, m2, index,
            links, data, g, scale, subset, held, skipped);
}

template <int kWidth, class Narrow, class Other>
void launch_merge(const MomentsView& state, Narrow* m2, const MomentsView& other, const Other* other_m2, void* stream) {
  DP_LAUNCH((merge_moments_kernel<kWidth, Narrow, Other>), unsigned(state.examples), threads_for(state.pixels, kWidth),
            0, stream, state, m2, other, other_m2);
}

}  // namespace

int record_gradients(const MomentsView& state, const int64_t* index, const uint32_t* links, const GradientsView& g,
                     const float* scale, const int64_t* subset, int64_t* skipped, void* stream) {
  if (g.rows == 0) return cudaSuccess;
  visit_elements(g.data, g.type, [&](auto* data) {
    visit_m2(state, [&](auto* m2) {
      using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
      constexpr int kWidth = kPackWidth<T>;
      if (subset == nullptr && packed<T>(g, kWidth) && aligned(state.mean) && aligned(state.m2)) {
        launch_record<kWidth>(state, m2, index, links, data, g, scale, subset, skipped, stream);
      } else {
        launch_record<1>(state, m2, index, links, data, g, scale, subset, skipped, stream);
      }
    });
  });
  return cudaGetLastError();
}

int merge_moments(const MomentsView& state, const MomentsView& other, void* stream) {
  if (state.examples == 0 || state.pixels == 0) return cudaSuccess;
  constexpr int kWidth = kPackWidth<float>;
  const bool vector = state.pixels % kWidth == 0 && aligned(state.mean) && aligned(state.m2) && aligned(other.mean) &&
                      aligned(other.m2);
  visit_m2(state, [&](auto* m2) {
    visit_m2(other, [&](auto* other_m2) {
      if (vector) {
        launch_merge<kWidth>(state, m2, other, other_m2, stream);
      } else {
        launch_merge<1>(state, m2, other, other_m2, stream);
      }
    });
  });
  return cudaGetLastError();
}

int gradient_variance(const GradientsView& g, int64_t checkpoints, int64_t checkpoint_stride, bool take_root,
                      float* out, void* stream) {
  if (g.rows == 0) return cudaSuccess;
  visit_elements(g.data, g.type, [&](auto* data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    constexpr int kWidth = 16 / int(sizeof(T));
    if (packed<T>(g, kWidth) && (checkpoints == 1 || checkpoint_stride * sizeof(T) % 16 == 0)) {
      DP_LAUNCH((gradient_variance_kernel<kWidth, T>), unsigned(g.rows), kVarianceThreads, 0, stream, data, g,
                checkpoints, checkpoint_stride, take_root, out);
    } else {
      DP_LAUNCH((gradient_variance_kernel<1, T>), unsigned(g.rows), kVarianceThreads, 0, stream, data, g, checkpoints,
                checkpoint_stride, take_root, out);
    }
  });
  return cudaGetLastError();
}

}  // namespace dp::cuda
