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

// Classes of a group of rows, the rows side by side.
constexpr int kTile = 32;
using Tile = float[kTile][kGroup];

template <class T>
DP_INLINE bool are_adjacent(const T* const* rows, int size) {
  bool adjacent = size == kGroup;
  for (int l = 0; l < kGroup; ++l) adjacent &= rows[l] == rows[0] + l;
  return adjacent;
}

// The `n` classes from `from` on. In place of rows beyond `size` comes the first.
template <int kLanes, class T>
DP_INLINE void load_tile(Tile& tile, const T* const* rows, int size, bool adjacent, int64_t class_stride, int64_t from,
                         int n) {
  if (adjacent) {
    for (int c = 0; c < n; ++c) {
      const T* z = rows[0] + (from + c) * class_stride;
      for (int l = 0; l < kGroup; l += kLanes) store(tile[c] + l, load<typename Vectors<kLanes>::Floats>(z + l));
    }
    return;
  }
  for (int l = 0; l < kGroup; ++l) {
    const T* z = rows[l < size ? l : 0] + from * class_stride;
    for (int c = 0; c < n; ++c) tile[c][l] = to_float(z[c * class_stride]);
  }
}

// What the loss tells of a row that is not finite, every statistic says.
template <class F>
DP_INLINE void spread_fault(StatsOf<F>& stats) {
  const F zero_or_nan = stats.value[kLoss] - stats.value[kLoss];
  for (F& value : stats.value) value += zero_or_nan;
}

// stats of rows, one in each lane, to one row after the other. Of the index of a value, first that of the statistic,
// then that of the row, each round moves the highest bit to the end.
template <class F>
DP_INLINE void store_rows(const StatsOf<F>& stats, SoftmaxStats* out) {
  static_assert(kStats == 8);
  F from[kStats], to[kStats];
  std::copy_n(stats.value, int(kStats), from);
  for (int round = 0; round < 3; ++round) {
    for (int s = 0; s < kStats / 2; ++s) {
      to[2 * s] = from[s], to[2 * s + 1] = from[s + kStats / 2];
      interleave(to[2 * s], to[2 * s + 1]);
    }
    std::copy_n(to, int(kStats), from);
  }
  memcpy(out, from, sizeof from);
}

inline void store_no_row(float* stats) {
  stats[0] = kNoRow;
  std::fill_n(stats + 1, kStats - 1, 0.0f);
}

}  // namespace dp::cpu
