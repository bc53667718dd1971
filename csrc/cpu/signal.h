// The signal of a row of gradients: per pixel, the mean over channels times the row's scale.
#pragma once

#include "../core/views.h"
#include "simd.h"

namespace dp::cpu {

template <class Real, class T>
DP_INLINE Real as(T x) {
  return sizeof(Real) == 8 ? Real(to_double(x)) : Real(to_float(x));
}

// Adjacent pixels of each channel.
template <class Real, class T>
DP_INLINE void planar_signal(Real* __restrict signal, const T* __restrict z, const GradientsView& g, int64_t n,
                             Real factor) {
  if (g.channels == 3) {
    const T *green = z + g.channel_stride, *blue = green + g.channel_stride;
    for (int64_t p = 0; p < n; ++p) signal[p] = (as<Real>(z[p]) + as<Real>(green[p]) + as<Real>(blue[p])) * factor;
  } else {
    for (int64_t p = 0; p < n; ++p) signal[p] = as<Real>(z[p]) * factor;
    for (int64_t c = 1; c < g.channels; ++c) {
      const T* plane = z + c * g.channel_stride;
      for (int64_t p = 0; p < n; ++p) signal[p] += as<Real>(plane[p]) * factor;
    }
  }
}

// Three adjacent channels of each pixel (channels_last images): constant strides vectorise.
template <class Real, class T>
DP_INLINE void interleaved_signal(Real* __restrict signal, const T* __restrict z, int64_t n, Real factor) {
  for (int64_t p = 0; p < n; ++p) {
    signal[p] = (as<Real>(z[3 * p]) + as<Real>(z[3 * p + 1]) + as<Real>(z[3 * p + 2])) * factor;
  }
}

// Any strides. `pixel_at(p)` is the offset of the p-th pixel to read.
template <class Real, class T, class PixelAt>
DP_INLINE void scattered_signal(Real* __restrict signal, const T* __restrict z, const GradientsView& g, int64_t n,
                                Real factor, PixelAt pixel_at) {
  if (g.channels == 3) {
    const T *green = z + g.channel_stride, *blue = green + g.channel_stride;
    for (int64_t p = 0; p < n; ++p) {
      const int64_t at = pixel_at(p);
      signal[p] = (as<Real>(z[at]) + as<Real>(green[at]) + as<Real>(blue[at])) * factor;
    }
  } else {
    for (int64_t p = 0; p < n; ++p) {
      const T* pixel = z + pixel_at(p);
      Real sum = 0;
      for (int64_t c = 0; c < g.channels; ++c) sum += as<Real>(pixel[c * g.channel_stride]);
      signal[p] = sum * factor;
    }
  }
}

// `subset` names the pixels to read (null: the first n); the caller has checked that they exist.
template <class Real, class T>
DP_INLINE void read_signal(Real* signal, const T* z, const GradientsView& g, const int64_t* subset, int64_t n,
                           Real scale) {
  const Real factor = scale / Real(g.channels);
  const int64_t stride = g.pixel_stride;
  if (subset != nullptr) {
    scattered_signal(signal, z, g, n, factor, [=](int64_t p) { return subset[p] * stride; });
  } else if (stride == 1) {
    planar_signal(signal, z, g, n, factor);
  } else if (g.channels == 3 && g.channel_stride == 1 && stride == 3) {
    interleaved_signal(signal, z, n, factor);
  } else {
    scattered_signal(signal, z, g, n, factor, [=](int64_t p) { return p * stride; });
  }
}

}  // namespace dp::cpu
