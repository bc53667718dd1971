// From rows to their examples. Sums are of double precision and in the order of the rows, so that they do not depend on
// how examples are split among threads.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"
#include "simd.h"

namespace dp::cpu {
namespace {

static_assert(kStats == 8);
using Stats = Vectors<kStats>::Floats;

struct Sum {
  DoublesOf<Stats> stats{};
  double weight = 0;
  int64_t rows = 0, label = kNoLabel;

  DP_INLINE void add(const RowsView& view, int64_t row) {
    const float* values = view.stats + row * kStats;
    double row_weight = view.weight ? double(view.weight[row]) : 1.0;
    if (row_weight == 0.0 || is_no_row(values)) return;
    if (row_weight < 0) row_weight = std::nan("");  // one that nobody has looked at; it shows in the mean
    weight += row_weight;
    stats.add_product(DoublesOf<Stats>::from(load<Stats>(values)), row_weight);
    label = ++rows == 1 && view.labels ? view.labels[row] : kNoLabel;
  }

  void store(float* out, int64_t* out_label) const {
    out[0] = kNoRow;
    std::fill_n(out + 1, kStats - 1, 0.0f);
    if (rows > 0) {
      for (int s = 0; s < kStats; ++s) out[s] = float(stats[s] / weight);
    }
    *out_label = label;
  }
};

// n rows from `row` on.
DP_CLONES void add_rows(Sum& sum, const RowsView& view, int64_t row, int64_t n) {
  Sum local;  // in registers
  for (int64_t r = row; r < row + n; ++r) local.add(view, r);
  sum = local;
}

}  // namespace

void reduce_rows(const RowsView& rows, float* out, int64_t* out_labels, int64_t* skipped, int64_t begin, int64_t end) {
  if (rows.owner == nullptr) {
    const int64_t each = rows.examples > 0 ? rows.rows / rows.examples : 0;
    for (int64_t example = begin; example < end; ++example) {
      Sum sum;
      add_rows(sum, rows, example * each, each);
      sum.store(out + example * kStats, out_labels + example);
    }
    return;
  }
  std::vector<Sum> sums(end - begin);
  int64_t unknown = 0;
  for (int64_t row = 0; row < rows.rows; ++row) {
    const int64_t owner = rows.owner[row];
    if (owner >= begin && owner < end) sums[owner - begin].add(rows, row);
    unknown += owner < kPadding || owner >= rows.examples;
  }
  for (int64_t example = begin; example < end; ++example) {
    sums[example - begin].store(out + example * kStats, out_labels + example);
  }
  if (begin == 0 && unknown != 0 && skipped != nullptr)
    __atomic_fetch_add(&skipped[kBadIndex], unknown, __ATOMIC_RELAXED);
}

}  // namespace dp::cpu
