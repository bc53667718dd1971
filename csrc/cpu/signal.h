// The signal of a row of gradients: per pixel, the mean over channels times the row's scale.
#pragma once

#include <limits>

#include "../core/views.h"
#include "simd.h"

namespace dp::cpu {

template <class Real, class T>
DP_INLINE Real as(T x) {
  return sizeof(Real) == 8 ? Real(to_double(x)) : Real(to_float(x));
}

// Adjacent pixels of each channel. kLanes at a time, so that a sum over channels stays in registers.
template <class Real, class T>
DP_INLINE void planar_signal(Real* signal, const T* z, const GradientsView& g, int64_t n, Real factor) {
  int64_t p = 0;
  for (; p + kLanes <= n; p += kLanes) {
    Real sum[kLanes];
    for (int l = 0; l < kLanes; ++l) sum[l] = as<Real>(z[p + l]);
    for (int64_t c = 1; c < g.channels; ++c) {
      const T* plane = z + c * g.channel_stride + p;
      for (int l = 0; l < kLanes; ++l) sum[l] += as<Real>(plane[l]);
    }
    for (int l = 0; l < kLanes; ++l) signal[p + l] = sum[l] * factor;
  }
  for (; p < n; ++p) {
    Real sum = 0;
    for (int64_t c = 0; c < g.channels; ++c) sum += as<Real>(z[p + c * g.channel_stride]);
    signal[p] = sum * factor;
  }
}

// Three adjacent channels of each pixel (channels_last images): constant strides vectorise.
template <class Real, class T>
DP_INLINE void interleaved_signal(Real* signal, const T* z, int64_t n, Real factor) {
  for (int64_t p = 0; p < n; ++p) {
    signal[p] = (as<Real>(z[3 * p]) + as<Real>(z[3 * p + 1]) + as<Real>(z[3 * p + 2])) * factor;
  }
}

// Any strides; `subset` names the pixels to read (null: the first n). A pixel that does not exist is NaN.
template <class Real, class T>
DP_INLINE void strided_signal(Real* signal, const T* z, const GradientsView& g, const int64_t* subset, int64_t n,
                              Real factor) {
  for (int64_t p = 0; p < n; ++p) {
    const int64_t pixel = subset ? subset[p] : p;
    Real sum = std::numeric_limits<Real>::quiet_NaN();
    if (pixel >= 0 && pixel < g.pixels) {
      sum = 0;
      for (int64_t c = 0; c < g.channels; ++c) sum += as<Real>(z[pixel * g.pixel_stride + c * g.channel_stride]);
    }
    signal[p] = sum * factor;
  }
}

template <class Real, class T>
DP_INLINE void read_signal(Real* signal, const T* z, const GradientsView& g, const int64_t* subset, int64_t n,
                           Real scale) {
  const Real factor = scale / Real(g.channels);
  if (subset != nullptr) {
    strided_signal(signal, z, g, subset, n, factor);
  } else if (g.pixel_stride == 1) {
    planar_signal(signal, z, g, n, factor);
  } else if (g.channels == 3 && g.channel_stride == 1 && g.pixel_stride == 3) {
    interleaved_signal(signal, z, n, factor);
  } else {
    strided_signal(signal, z, g, nullptr, n, factor);
  }
}

}  // namespace dp::cpu
