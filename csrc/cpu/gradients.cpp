#include <algorithm>
#include <cmath>
#include <memory>

#include "../core/moments.h"
#include "kernels.h"
#include "signal.h"

namespace dp::cpu {
namespace {

DP_INLINE bool all_finite(const float* signal, int64_t n) {
  Floats even = all(0.0f), odd = all(0.0f);
  int64_t p = 0;
  for (; p + 2 * kLanes <= n; p += 2 * kLanes) {
    even += load(signal + p) - load(signal + p);
    odd += load(signal + p + kLanes) - load(signal + p + kLanes);
  }
  float probe = sum(even + odd);
  for (; p < n; ++p) probe += signal[p] - signal[p];
  return probe == 0.0f;  // x - x is NaN where x is not finite
}

// One Welford step per pixel; `Narrow` is float or BFloat16.
template <class Narrow>
DP_INLINE void welford_row(float* __restrict mean, Narrow* __restrict m2, const float* __restrict signal, int64_t n,
                           float share, const Rounding& round) {
  for (int64_t p = 0; p < n; ++p) {
    float sum = to_float(m2[p]);
    welford(mean[p], sum, signal[p], share);
    store_m2(m2[p], sum, round, uint32_t(p));
  }
}

template <class Narrow, class Other>
DP_INLINE void merge_row(float* __restrict mean, Narrow* __restrict m2, const float* other_mean, const Other* other_m2,
                         int64_t n, float count, float share, const Rounding& round) {
  for (int64_t p = 0; p < n; ++p) {
    float sum = to_float(m2[p]);
    merge(mean[p], sum, count, other_mean[p], to_float(other_m2[p]), share);
    store_m2(m2[p], sum, round, uint32_t(p));
  }
}

// Two passes in double precision over blocks of pixels that stay in the nearest cache.
template <class T>
DP_INLINE void variance_rows(const T* data, const GradientsView& g, int64_t checkpoints, int64_t checkpoint_stride,
                             bool take_root, float* out, int64_t begin, int64_t end) {
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
        read_signal(signal, block + k * checkpoint_stride, g, nullptr, n, 1.0);
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

// Function multiversioning takes no templates: one plain function per combination of types.
#define DP_FOR_GRADIENT_TYPES(APPLY) APPLY(float) APPLY(BFloat16) APPLY(Float16) APPLY(double)
#define DP_FOR_M2_TYPES(APPLY) APPLY(float) APPLY(BFloat16)

#define DP_DEFINE_ROWS(T)                                                                                    \
  DP_CLONES bool clone_read_signal(float* signal, const T* z, const GradientsView& g, const int64_t* subset, \
                                   int64_t n, float scale) {                                                 \
    read_signal(signal, z, g, subset, n, scale);                                                             \
    return all_finite(signal, n);                                                                            \
  }                                                                                                          \
  DP_CLONES void clone_variance_rows(const T* data, const GradientsView& g, int64_t checkpoints,             \
                                     int64_t checkpoint_stride, bool take_root, float* out, int64_t begin,   \
                                     int64_t end) {                                                          \
    variance_rows(data, g, checkpoints, checkpoint_stride, take_root, out, begin, end);                      \
  }
DP_FOR_GRADIENT_TYPES(DP_DEFINE_ROWS)
#undef DP_DEFINE_ROWS

#define DP_DEFINE_ROWS(M2)                                                                                          \
  DP_CLONES void clone_welford_row(float* mean, M2* m2, const float* signal, int64_t n, float share,                \
                                   const Rounding& round) {                                                         \
    welford_row(mean, m2, signal, n, share, round);                                                                 \
  }                                                                                                                 \
  DP_CLONES void clone_merge_row(float* mean, M2* m2, const float* other_mean, const float* other_m2, int64_t n,    \
                                 float count, float share, const Rounding& round) {                                 \
    merge_row(mean, m2, other_mean, other_m2, n, count, share, round);                                              \
  }                                                                                                                 \
  DP_CLONES void clone_merge_row(float* mean, M2* m2, const float* other_mean, const BFloat16* other_m2, int64_t n, \
                                 float count, float share, const Rounding& round) {                                 \
    merge_row(mean, m2, other_mean, other_m2, n, count, share, round);                                              \
  }
DP_FOR_M2_TYPES(DP_DEFINE_ROWS)
#undef DP_DEFINE_ROWS

}  // namespace

void record_gradients(const MomentsView& state, const int64_t* index, const GradientsView& g, const float* scale,
                      const int64_t* subset, const DuplicateChains& chains, int64_t* skipped, int64_t begin,
                      int64_t end) {
  const std::unique_ptr<float[]> signal(new float[state.pixels]);
  int64_t local[kSkippedKinds] = {};
  const bool pixels_exist = !subset || std::all_of(subset, subset + state.pixels,
                                                   [&](int64_t pixel) { return pixel >= 0 && pixel < g.pixels; });
  const auto record_row = [&](int64_t row) {
    const int64_t example = index[row];
    if (example < 0 || example >= state.examples) {
      ++local[kBadIndex];
      return;
    }
    const float factor = scale ? scale[row] : 1.0f;
    if (factor == 0.0f) return;
    const bool finite =
        pixels_exist && visit_elements(g.data, g.type, [&](auto* data) {
          return clone_read_signal(signal.get(), data + row * g.row_stride, g, subset, state.pixels, factor);
        });
    if (!finite) {
      ++local[kNotFinite];
      return;
    }
    const int32_t count = ++state.count[example];
    const int64_t first = example * state.pixels;
    visit_m2(state, [&](auto* m2) {
      clone_welford_row(state.mean + first, m2 + first, signal.get(), state.pixels, 1.0f / float(count),
                        Rounding(example, count));
    });
  };
  for (int64_t head = begin; head < end; ++head) {
    if (!chains.is_head(head)) continue;
    for (int64_t row = head; row != DuplicateChains::kEnd; row = chains.next(row)) record_row(row);
  }
  add_skipped(skipped, local);
}

void merge_moments(const MomentsView& state, const MomentsView& other, int64_t begin, int64_t end) {
  for (int64_t example = begin; example < end; ++example) {
    const int32_t count = state.count[example], total = count + other.count[example];
    if (other.count[example] == 0) continue;
    const int64_t first = example * state.pixels;
    visit_m2(state, [&](auto* m2) {
      visit_m2(other, [&](auto* other_m2) {
        clone_merge_row(state.mean + first, m2 + first, other.mean + first, other_m2 + first, state.pixels,
                        float(count), float(other.count[example]) / float(total), Rounding(example, total));
      });
    });
    state.count[example] = total;
  }
}

void gradient_variance(const GradientsView& gradients, int64_t checkpoints, int64_t checkpoint_stride, bool take_root,
                       float* out, int64_t begin, int64_t end) {
  visit_elements(gradients.data, gradients.type, [&](auto* data) {
    clone_variance_rows(data, gradients, checkpoints, checkpoint_stride, take_root, out, begin, end);
  });
}

}  // namespace dp::cpu
