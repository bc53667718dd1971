// Rows of logits on their way through vectors: where they begin, groups of them, and tiles that hold a group's classes
// side by side.
#pragma once

#include <algorithm>

#include "../core/softmax.h"
#include "../core/views.h"
#include "simd.h"

namespace dp::cpu {

// Up to kGroup rows, not necessarily neighbours, are worked on together: what each needs at its end, a logarithm say,
// is then that of a vector.
constexpr int kGroup = 16;

DP_INLINE bool is_ignored(int64_t label, int64_t ignore) { return label == ignore && label != INT64_MIN; }

// Walks through the rows in order without a division for each.
class RowOffsets {
 public:
  explicit RowOffsets(const LogitsView& view) : view_(view) {}

  // Until where the rows from `row` on lie row_stride apart.
  int64_t run_end(int64_t row) {
    at(row);
    return end_;
  }

  int64_t at(int64_t row) {
    if (row < begin_ || row >= end_) {
      begin_ = row;
      end_ = view_.outer_dims == 0 ? view_.rows : row - row % view_.positions + view_.positions;
      first_ = view_.offset(row);
    }
    return first_ + (row - begin_) * view_.row_stride;
  }

 private:
  const LogitsView& view_;
  int64_t begin_ = 0, end_ = 0, first_ = 0;  // the run of rows that lie row_stride apart
};

// As many vectors as they have lanes, of an index that is first that of the vector, then that of the lane: each round
// moves its highest bit to the end, until the two have changed places.
template <class F>
DP_INLINE void transpose(F* x) {
  constexpr int kLanes = lanes_of<F>;
  for (int round = 1; round < kLanes; round *= 2) {
    F y[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      y[2 * i] = x[i], y[2 * i + 1] = x[i + kLanes / 2];
      interleave(y[2 * i], y[2 * i + 1]);
    }
    for (int i = 0; i < kLanes; ++i) x[i] = y[i];
  }
}

// Classes of a number of rows, the rows side by side.
constexpr int kTile = 128;
template <int kRows>
using TileOf = float[kTile][kRows];
using Tile = TileOf<kGroup>;

// n adjacent classes of each row, as many at a time as a vector holds. The last of them may be some of those before.
template <int kLanes, class T>
DP_INLINE void load_rows(Tile& tile, const T* const* rows, int64_t from, int n) {
  if (n < kLanes) {
    if constexpr (kLanes > 4) {
      load_rows<kLanes / 2>(tile, rows, from, n);
    } else {
      for (int l = 0; l < kGroup; ++l) {
        for (int c = 0; c < n; ++c) tile[c][l] = to_float(rows[l][from + c]);
      }
    }
    return;
  }
  using F = typename Vectors<kLanes>::Floats;
  for (int start = 0; start < n; start += kLanes) {
    const int c = std::min(start, n - kLanes);
    for (int l = 0; l < kGroup; l += kLanes) {
      F x[kLanes];
      for (int i = 0; i < kLanes; ++i) x[i] = load<F>(rows[l + i] + from + c);
      transpose(x);
      for (int i = 0; i < kLanes; ++i) store(tile[c + i] + l, x[i]);
    }
  }
}

// A group's rows, with the first in place of those that are missing.
template <class T>
struct ApartRows {
  const T* rows[kGroup];
  int64_t class_stride;

  DP_INLINE ApartRows(const T* const* at, int size, int64_t stride) : class_stride(stride) {
    for (int l = 0; l < kGroup; ++l) rows[l] = at[l < size ? l : 0];
  }
  template <int kLanes>
  DP_INLINE void load(Tile& tile, int64_t from, int n) const {
    if (class_stride == 1) return load_rows<kLanes>(tile, rows, from, n);
    for (int l = 0; l < kGroup; ++l) {
      for (int c = 0; c < n; ++c) tile[c][l] = to_float(rows[l][(from + c) * class_stride]);
    }
  }
};

// Rows that are neighbours, as the pixels of an image are. Many at a time, since of each class a piece is read that
// lies elsewhere, and the pieces of all classes may compete for one place in a cache.
constexpr int kRun = 256;
template <class T>
struct AdjacentRows {
  const T* first;
  int size;
  int64_t class_stride;

  template <int kLanes>
  DP_INLINE void load(TileOf<kRun>& tile, int64_t from, int n) const {
    for (int c = 0; c < n; ++c) {
      const T* z = first + (from + c) * class_stride;
      int l = 0;
      for (; l + kLanes <= size; l += kLanes) store(tile[c] + l, dp::load<typename Vectors<kLanes>::Floats>(z + l));
      for (; l < size; ++l) tile[c][l] = to_float(z[l]);
      for (; l % kLanes != 0; ++l) tile[c][l] = 0.0f;
    }
  }
};

// What the loss tells of a row that is not finite, every statistic says.
template <class F>
DP_INLINE void spread_fault(StatsOf<F>& stats) {
  const F zero_or_nan = stats.value[kLoss] - stats.value[kLoss];
  for (F& value : stats.value) value += zero_or_nan;
}

// stats of rows, one in each lane, to one row after the other. Of the index of a value, first that of the statistic,
// then that of the row, each round moves the highest bit to the end.
template <class F>
DP_INLINE void store_rows(const StatsOf<F>& stats, float* out) {
  static_assert(kStats == 8);
  F from[kStats], to[kStats];
  for (int s = 0; s < kStats; ++s) from[s] = stats.value[s];
  for (int round = 0; round < 3; ++round) {
    for (int s = 0; s < kStats / 2; ++s) {
      to[2 * s] = from[s], to[2 * s + 1] = from[s + kStats / 2];
      interleave(to[2 * s], to[2 * s + 1]);
    }
    for (int s = 0; s < kStats; ++s) from[s] = to[s];
  }
  for (int s = 0; s < kStats; ++s) store(out + s * lanes_of<F>, from[s]);
}

// The first n of them.
template <class F>
DP_INLINE void store_rows(const StatsOf<F>& stats, int n, float* out) {
  if (n >= lanes_of<F>) return store_rows(stats, out);
  float rows[lanes_of<F> * kStats];
  store_rows(stats, rows);
  std::copy_n(rows, n * kStats, out);
}

inline void store_no_row(float* stats) {
  stats[0] = kNoRow;
  std::fill_n(stats + 1, kStats - 1, 0.0f);
}

}  // namespace dp::cpu
