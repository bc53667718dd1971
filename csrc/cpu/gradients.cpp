#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/welford.h"
#include "kernels.h"
#include "simd.h"

namespace dp::cpu {
namespace {

// signal[p] = mean over channels of scale * gradient, for `n` pixels from `z`.
template <class Real, class T>
inline __attribute__((always_inline)) void channel_mean(Real* signal, const T* z, const GradientsView& g, int64_t n,
                                                        Real scale) {
  auto convert = [](T x) { return sizeof(Real) == 8 ? Real(to_double(x)) : Real(to_float(x)); };
  const Real factor = scale / Real(g.channels);
  if (g.pixel_stride == 1) {
    for (int64_t p = 0; p < n; ++p) signal[p] = convert(z[p]);
    for (int64_t c = 1; c < g.channels; ++c) {
      const T* plane = z + c * g.channel_stride;
      for (int64_t p = 0; p < n; ++p) signal[p] += convert(plane[p]);
    }
    for (int64_t p = 0; p < n; ++p) signal[p] *= factor;
  } else {
    for (int64_t p = 0; p < n; ++p) {
      const T* pixel = z + p * g.pixel_stride;
      Real sum = 0;
      for (int64_t c = 0; c < g.channels; ++c) sum += convert(pixel[c * g.channel_stride]);
      signal[p] = sum * factor;
    }
  }
}

inline __attribute__((always_inline)) bool all_finite(const float* signal, int64_t n) {
  float lanes[kLanes] = {};
  int64_t p = 0;
  for (; p + kLanes <= n; p += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] += signal[p + l] - signal[p + l];
  }
  float probe = 0;
  for (; p < n; ++p) probe += signal[p] - signal[p];
  for (int l = 0; l < kLanes; ++l) probe += lanes[l];
  return probe == 0.0f;
}

template <class T>
inline __attribute__((always_inline)) void record_rows(const T* data, const MomentsView& state, const int64_t* index,
                                                       const GradientsView& g, const float* scale,
                                                       const DuplicateChains& chains, int64_t* skipped, float* signal,
                                                       int64_t begin, int64_t end) {
  int64_t local[kSkippedKinds] = {};
  for (int64_t head = begin; head < end; ++head) {
    if (!chains.is_head(head)) continue;
    for (int64_t row = head; row != DuplicateChains::kEnd; row = chains.next(row)) {
      const int64_t example = index[row];
      if (example < 0 || example >= state.examples) {
        ++local[kBadIndex];
        continue;
      }
      const float factor = scale ? scale[row] : 1.0f;
      if (factor == 0.0f) continue;
      channel_mean(signal, data + row * g.row_stride, g, g.pixels, factor);
      if (!all_finite(signal, g.pixels)) {
        ++local[kNotFinite];
        continue;
      }
      const float share = 1.0f / float(++state.count[example]);
      float* mean = state.mean + example * g.pixels;
      float* m2 = state.m2 + example * g.pixels;
      for (int64_t p = 0; p < g.pixels; ++p) welford(mean[p], m2[p], signal[p], share);
    }
  }
  for (int kind = 0; kind < kSkippedKinds; ++kind) {
    if (local[kind] != 0) __atomic_fetch_add(&skipped[kind], local[kind], __ATOMIC_RELAXED);
  }
}

// Two passes in double precision over blocks of pixels that stay in the nearest cache.
template <class T>
inline __attribute__((always_inline)) void variance_rows(const T* data, const GradientsView& g, int64_t checkpoints,
                                                         int64_t checkpoint_stride, bool take_root, float* out,
                                                         int64_t begin, int64_t end) {
  constexpr int64_t kBlock = 256;
  double signal[kBlock], mean[kBlock], m2[kBlock];
  for (int64_t row = begin; row < end; ++row) {
    double total = 0;
    for (int64_t start = 0; start < g.pixels; start += kBlock) {
      const int64_t n = std::min(kBlock, g.pixels - start);
      const T* block = data + row * g.row_stride + start * g.pixel_stride;
      std::fill_n(mean, n, 0.0);
      std::fill_n(m2, n, 0.0);
      for (int64_t k = 0; k < checkpoints; ++k) {
        channel_mean(signal, block + k * checkpoint_stride, g, n, 1.0);
        for (int64_t p = 0; p < n; ++p) welford(mean[p], m2[p], signal[p], 1.0 / double(k + 1));
      }
      for (int64_t p = 0; p < n; ++p) {
        const double variance = m2[p] / double(checkpoints);
        total += take_root ? std::sqrt(variance) : variance;
      }
    }
    out[row] = float(total / double(g.pixels));
  }
}

#define DP_FOR_GRADIENT_TYPES(APPLY) APPLY(float) APPLY(BFloat16) APPLY(Float16) APPLY(double)

#define DP_DEFINE_ROWS(T)                                                                                     \
  DP_CLONES void clone_record_rows(const T* data, const MomentsView& state, const int64_t* index,             \
                                   const GradientsView& g, const float* scale, const DuplicateChains& chains, \
                                   int64_t* skipped, float* signal, int64_t begin, int64_t end) {             \
    record_rows(data, state, index, g, scale, chains, skipped, signal, begin, end);                           \
  }                                                                                                           \
  DP_CLONES void clone_variance_rows(const T* data, const GradientsView& g, int64_t checkpoints,              \
                                     int64_t checkpoint_stride, bool take_root, float* out, int64_t begin,    \
                                     int64_t end) {                                                           \
    variance_rows(data, g, checkpoints, checkpoint_stride, take_root, out, begin, end);                       \
  }
DP_FOR_GRADIENT_TYPES(DP_DEFINE_ROWS)
#undef DP_DEFINE_ROWS

}  // namespace

void record_gradients(const MomentsView& state, const int64_t* index, const GradientsView& gradients,
                      const float* scale, const DuplicateChains& chains, int64_t* skipped, int64_t begin, int64_t end) {
  std::vector<float> signal(gradients.pixels);
  visit_elements(gradients.data, gradients.type, [&](auto* data) {
    clone_record_rows(data, state, index, gradients, scale, chains, skipped, signal.data(), begin, end);
  });
}

void gradient_variance(const GradientsView& gradients, int64_t checkpoints, int64_t checkpoint_stride, bool take_root,
                       float* out, int64_t begin, int64_t end) {
  visit_elements(gradients.data, gradients.type, [&](auto* data) {
    clone_variance_rows(data, gradients, checkpoints, checkpoint_stride, take_root, out, begin, end);
  });
}

}  // namespace dp::cpu
