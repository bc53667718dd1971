// A row of logits read once, by a thread, a warp or a block.
//
// Whoever reads it leaves the label out: where its logit stands, -inf is read in its place. Sums are those of
// OtherClasses, relative to the largest logit, or the largest so far.
#pragma once

#include <cfloat>
#include <cmath>

#include "../core/softmax.h"
#include "packs.cuh"
#include "warp.cuh"

namespace dp::cuda {

__device__ __forceinline__ bool is_ignored(int64_t label, int64_t ignore) {
  return label == ignore && label != INT64_MIN;
}

__device__ __forceinline__ void store_stats(float* out, const SoftmaxStats& stats) {
  Pack<float, kStats> pack;
#pragma unroll
  for (int s = 0; s < kStats; ++s) pack.lane[s] = stats.value[s];
  store(out, pack);
}

__device__ __forceinline__ SoftmaxStats all_stats(float loss, float others) {
  SoftmaxStats stats;
#pragma unroll
  for (int s = 0; s < kStats; ++s) stats.value[s] = s == kLoss ? loss : others;
  return stats;
}

__device__ __forceinline__ SoftmaxStats no_row() { return all_stats(kNoRow, 0.0f); }

// What the loss tells of a row that is not finite, every statistic says.
__device__ __forceinline__ SoftmaxStats known(const SoftmaxStats& stats, bool good) {
  return good && is_finite(stats.value[kLoss]) ? stats : all_stats(NAN, NAN);
}

// exp(x) of x <= 0 in two instructions. The error, of 2 units in the last place and |x| / 2 more, is relative to a term
// that is small beside the largest where |x| is large.
__device__ __forceinline__ float exp_quickly(float x) {
  const float exponent = x * 1.4426950408889634f;
#ifdef __CUDA_ARCH__
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
  return power;
#else
  return exp2f(exponent);
#endif
}

// A masked class has e = 0, and its d, which is infinite, is cut off. A NaN stays in e.
__device__ __forceinline__ void add_class(OtherClasses& sums, float z, float top) {
  const float d = z - top, e = exp_quickly(d);
  sums.e += e;
  sums.e_times_d += e * fmaxf(d, -110.0f);
  sums.e_squared += e * e;
}

template <class T>
__device__ __forceinline__ T masked();
template <>
__device__ __forceinline__ float masked() {
  return -INFINITY;
}
template <>
__device__ __forceinline__ BFloat16 masked() {
  return BFloat16{0xff80};
}
template <>
__device__ __forceinline__ Float16 masked() {
  return Float16{0xfc00};
}

// The largest logits of the classes on either side of the label, and that of the label, where a lane has seen them.
struct Extrema {
  float before = -INFINITY, after = -INFINITY, z_label = -INFINITY;

  // kWidth adjacent classes from `c` on. Of most packs it is enough to know on which side of the label they are.
  template <int kWidth, class T>
  __device__ __forceinline__ void add(Pack<T, kWidth>& pack, int c, int label) {
    if (label >= c && label < c + kWidth) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const float z = to_float(pack.lane[j]);
        if (c + j < label) before = fmaxf(z, before);
        if (c + j > label) after = fmaxf(z, after);
        if (c + j == label) {
          z_label = z;
          pack.lane[j] = masked<T>();
        }
      }
      return;
    }
    float largest = to_float(pack.lane[0]);
#pragma unroll
    for (int j = 1; j < kWidth; ++j) largest = fmaxf(to_float(pack.lane[j]), largest);
    if (c < label) {
      before = fmaxf(largest, before);
    } else {
      after = fmaxf(largest, after);
    }
  }

  __device__ __forceinline__ void reduce_warp() {
    const auto larger_of = [](float a, float b) { return fmaxf(a, b); };
    before = cuda::reduce_warp(before, larger_of);
    after = cuda::reduce_warp(after, larger_of);
    z_label = cuda::reduce_warp(z_label, larger_of);  // passes over NaN, and what is left says as much
  }
  __device__ __forceinline__ float rival() const { return fmaxf(before, after); }
};

// A thread reads kRows rows, which lie side by side.
template <int kRows, class T>
struct ThreadRows {
  float seen[kRows], before[kRows], z_label[kRows], top[kRows];
  OtherClasses others[kRows];

  __device__ __forceinline__ ThreadRows() {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      seen[r] = before[r] = z_label[r] = -INFINITY;
      top[r] = -FLT_MAX;  // finite, so that masked classes are below it
    }
  }

  __device__ __forceinline__ void read(const T* z, int64_t class_stride, int classes, const int* labels) {
    constexpr int kChunk = kRows == 8 ? 4 : 8;
    for (int start = 0; start < classes; start += kChunk) {
      Pack<T, kRows> chunk[kChunk];
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        if (start + i < classes) chunk[i] = load<kRows>(z + (start + i) * class_stride);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float others_z[kChunk];
#pragma unroll
        for (int i = 0; i < kChunk; ++i) {
          others_z[i] = -INFINITY;
          if (start + i < classes) others_z[i] = leave_label_out(to_float(chunk[i].lane[r]), start + i == labels[r], r);
        }
        const float new_top = fmaxf(top[r], fmaxf(before[r], seen[r]));
        others[r].rebase(top[r], new_top);
        top[r] = new_top;
        OtherClasses sums;  // apart, because many small addends in a row would each be rounded to a large sum
#pragma unroll
        for (int i = 0; i < kChunk; ++i) {
          if (start + i < classes) add_class(sums, others_z[i], new_top);
        }
        others[r].add(sums);
      }
    }
  }

  __device__ __forceinline__ SoftmaxStats finish(int r, bool single_class) {
    others[r].rebase(top[r], fmaxf(z_label[r], top[r]));
    return finish_stats(z_label[r], before[r], seen[r], others[r], single_class);
  }

 private:
  __device__ __forceinline__ float leave_label_out(float z, bool is_label, int r) {
    before[r] = is_label ? seen[r] : before[r];
    z_label[r] = is_label ? z : z_label[r];
    seen[r] = is_label ? -INFINITY : fmaxf(z, seen[r]);
    return is_label ? -INFINITY : z;
  }
};

// What a kernel needs to know of who reads a row: how many threads, how many blocks of them a multiprocessor is to hold
// (of kernels that record as well: kMinRecorders), which row they read, which of them speaks for all.
template <class T>
struct ByThread {
  static constexpr int kWidth = 1, kMaxThreads = kBlock, kMinBlocks = 4, kMinRecorders = 4;
  static unsigned blocks(int64_t rows) { return unsigned((rows + kBlock - 1) / kBlock); }
  static int threads(int64_t) { return kBlock; }
  static __device__ __forceinline__ int64_t row() { return int64_t(blockIdx.x) * kBlock + threadIdx.x; }
  static __device__ __forceinline__ bool speaks() { return true; }

  static __device__ __forceinline__ SoftmaxStats stats(const T* z, int64_t classes, int64_t label) {
    ThreadRows<1, T> row;
    const int own = int(label);
    row.read(z, 1, int(classes), &own);
    return row.finish(0, classes == 1);
  }
};

// The row waits in registers between the search for the largest logit and the sums relative to it.
template <int kPackWidth_, int kHeldClasses, class T>
struct ByWarp {
  static constexpr int kWidth = kPackWidth_, kMaxThreads = kBlock, kMinBlocks = kHeldClasses <= 256 ? 8 : 4;
  static constexpr int kMinRecorders = kMinBlocks;
  static unsigned blocks(int64_t rows) { return blocks_for(rows); }
  static int threads(int64_t) { return kBlock; }
  static __device__ __forceinline__ int64_t row() { return int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp; }
  static __device__ __forceinline__ bool speaks() { return threadIdx.x % kWarp == 0; }

  static __device__ __forceinline__ SoftmaxStats stats(const T* z, int64_t n, int64_t its_label) {
    constexpr int kPacks = kHeldClasses / (kWarp * kWidth);
    const int lane = threadIdx.x % kWarp, classes = int(n), label = int(its_label);
    Pack<T, kWidth> held[kPacks];
    Extrema extrema;
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int c = (i * kWarp + lane) * kWidth;
      if (c < classes) held[i] = load<kWidth>(z + c);
    }
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int c = (i * kWarp + lane) * kWidth;
      if (c < classes) extrema.add(held[i], c, label);
    }
    extrema.reduce_warp();
    const float top = fmaxf(extrema.z_label, extrema.rival());
    OtherClasses others;
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int c = (i * kWarp + lane) * kWidth;
      if (c < classes) {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) add_class(others, to_float(held[i].lane[j]), top);
      }
    }
    others = {sum_warp(others.e), sum_warp(others.e_times_d), sum_warp(others.e_squared)};
    return finish_stats(extrema.z_label, extrema.before, extrema.after, others, classes == 1);
  }
};

// Each thread sums relative to the largest logit that it has seen so far, for rows of any length.
template <int kPackWidth_, class T>
struct ByBlock {
  static constexpr int kWidth = kPackWidth_, kMaxThreads = 512, kMinBlocks = kWidth == 8 ? 1 : 2, kMinRecorders = 1;
  static unsigned blocks(int64_t rows) { return unsigned(rows); }
  static int threads(int64_t classes) { return classes < 8192 ? 128 : classes < 65536 ? 256 : 512; }
  static __device__ __forceinline__ int64_t row() { return blockIdx.x; }
  static __device__ __forceinline__ bool speaks() { return threadIdx.x == 0; }

  // The statistics are for the thread that speaks.
  static __device__ __forceinline__ SoftmaxStats stats(const T* z, int64_t n, int64_t its_label) {
    constexpr int kLoads = 4;
    const int step = int(blockDim.x) * kWidth, classes = int(n), label = int(its_label);
    Extrema extrema;
    OtherClasses others;
    float top = -FLT_MAX;  // finite, so that masked classes are below it
    for (int start = int(threadIdx.x) * kWidth; start < classes; start += kLoads * step) {
      Pack<T, kWidth> packs[kLoads];
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int c = start + i * step;
        if (c < classes) packs[i] = load<kWidth>(z + c);
      }
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int c = start + i * step;
        if (c < classes) extrema.add(packs[i], c, label);
      }
      const float new_top = fmaxf(top, extrema.rival());
      others.rebase(top, new_top);
      top = new_top;
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int c = start + i * step;
        if (c < classes) {
#pragma unroll
          for (int j = 0; j < kWidth; ++j) add_class(others, to_float(packs[i].lane[j]), top);
        }
      }
    }
    return combine(extrema, others, top);
  }

 private:
  // Rows may follow each other: a warp writes what the next row needs only when all have read it of this one.
  static __device__ __forceinline__ SoftmaxStats combine(Extrema extrema, OtherClasses others, float top) {
    __shared__ Extrema extrema_of[kMaxThreads / kWarp];
    __shared__ OtherClasses others_of[kMaxThreads / kWarp];
    const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
    extrema.reduce_warp();
    if (threadIdx.x % kWarp == 0) extrema_of[warp] = extrema;
    __syncthreads();
    for (int w = 0; w < warps; ++w) {
      extrema.before = fmaxf(extrema_of[w].before, extrema.before);
      extrema.after = fmaxf(extrema_of[w].after, extrema.after);
      extrema.z_label = fmaxf(extrema_of[w].z_label, extrema.z_label);
    }
    others.rebase(top, fmaxf(fmaxf(extrema.z_label, extrema.rival()), -FLT_MAX));
    others = {sum_warp(others.e), sum_warp(others.e_times_d), sum_warp(others.e_squared)};
    if (threadIdx.x % kWarp == 0) others_of[warp] = others;
    __syncthreads();
    SoftmaxStats result;
    if (speaks()) {
      others = {};
      for (int w = 0; w < warps; ++w) others.add(others_of[w]);
      result = finish_stats(extrema.z_label, extrema.before, extrema.after, others, false);
    }
    return result;
  }
};

constexpr int64_t kNarrow = 32;  // classes of which a warp would leave most lanes idle

// Calls launch(who) with the type of who reads the rows: adjacent classes each, more than kNarrow.
template <class T, class F>
void visit_wide_readers(const LogitsView& logits, const T* data, F&& launch) {
  constexpr int kWide = kPackWidth<T>;
  const bool wide = packed(logits, data);
  if (logits.classes <= 256) {
    wide ? launch(ByWarp<kWide, 256, T>()) : launch(ByWarp<1, 256, T>());
  } else if (logits.classes <= 1024) {
    wide ? launch(ByWarp<kWide, 1024, T>()) : launch(ByWarp<1, 1024, T>());
  } else {
    wide ? launch(ByBlock<kWide, T>()) : launch(ByBlock<1, T>());
  }
}

}  // namespace dp::cuda
