#include <cfloat>
#include <cmath>
#include <utility>

#include "kernels.h"
#include "rows.h"

namespace dp::cpu {
namespace {

// The classes of a row other than the label, block by block: first the largest of a block, then sums relative to the
// largest so far. The second look at a block finds it in the nearest cache. Of adjacent logits in one vector, the label
// and classes that were seen before are -inf, as masked ones are, so that they weigh nothing.
constexpr int64_t kBlock = 4096;

template <class F>
struct Highest {
  F top[4] = {all<F>(-INFINITY), all<F>(-INFINITY), all<F>(-INFINITY), all<F>(-INFINITY)};

  DP_INLINE void add(F others) { top[0] = larger(others, top[0]); }
  template <class T>
  DP_INLINE void add(const T* z, const T* end) {
    constexpr int kLanes = lanes_of<F>;
    for (; z + 4 * kLanes <= end; z += 4 * kLanes) {
      for (int i = 0; i < 4; ++i) top[i] = larger(load<F>(z + i * kLanes), top[i]);
    }
    for (; z < end; z += kLanes) add(load<F>(z));
  }
  DP_INLINE float total() const { return largest(larger(larger(top[0], top[1]), larger(top[2], top[3]))); }
};

template <class F>
struct Sums {
  F top;
  F e = all<F>(0.0f), e_times_d = all<F>(0.0f), e_squared = all<F>(0.0f);

  DP_INLINE void add(F others) {
    const F d = at_least(all<F>(kLowest), others - top);  // keeps 0 log 0 = 0 where d is infinite, and NaN
    const F exponential = exp_nonpositive(d);
    e += exponential;
    e_times_d += exponential * d;
    e_squared += exponential * exponential;
  }
  template <class T>
  DP_INLINE void add(const T* z, const T* end) {
    for (; z < end; z += lanes_of<F>) {
      __builtin_prefetch(z + kBlock);  // the next block, or the next rows
      add(load<F>(z));
    }
  }
  DP_INLINE void add(const Sums& o) {
    e += o.e;
    e_times_d += o.e_times_d;
    e_squared += o.e_squared;
  }
  // To a larger logit: d and so e of every class shrink alike.
  DP_INLINE void rebase(F new_top) {
    const F shift = at_least(all<F>(kLowest), top - new_top);
    const F factor = exp_nonpositive(shift);
    e_times_d = factor * (e_times_d + shift * e);
    e *= factor;
    e_squared *= factor * factor;
    top = new_top;
  }
};

constexpr float kOut = -INFINITY;

// -inf in one lane, 0 in the others.
template <class F>
DP_INLINE F without_lane(int64_t lane) {
  static constexpr float kWindow[31] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, kOut};
  return load<F>(kWindow + 15 - lane);
}

// -inf in all lanes but the last n.
template <class F>
DP_INLINE F last_lanes(int64_t n) {
  static constexpr float kWindow[32] = {kOut, kOut, kOut, kOut, kOut, kOut, kOut, kOut,
                                        kOut, kOut, kOut, kOut, kOut, kOut, kOut, kOut};
  return load<F>(kWindow + 16 - lanes_of<F> + n);
}

// Classes from..to of a row that has at least as many as a vector. `from` is a multiple of kBlock.
template <class F, class T, class Pass>
DP_INLINE void visit_others(Pass& pass, const T* z, int64_t from, int64_t to, int64_t label) {
  constexpr int kLanes = lanes_of<F>;
  const int64_t whole = to - to % kLanes, label_at = label - label % kLanes;
  if (label_at >= from && label_at < whole) {
    pass.add(z + from, z + label_at);
    pass.add(load<F>(z + label_at) + without_lane<F>(label - label_at));
    from = label_at + kLanes;
  }
  pass.add(z + from, z + whole);
  if (whole < to) {  // looks back at classes seen before, so that it need not look beyond the row
    F others = load<F>(z + to - kLanes) + last_lanes<F>(to - whole);
    if (label >= whole && label < to) others += without_lane<F>(label - to + kLanes);
    pass.add(others);
  }
}

// What is known of rows when all their classes have been seen.
template <int kRows>
struct SumsOf {
  float z_label[kRows], before[kRows], after[kRows], e[kRows], e_times_d[kRows], e_squared[kRows];
};

template <class F, class T>
DP_INLINE float largest_of(const T* z, int64_t n) {
  Highest<F> highest;
  const int64_t whole = n - n % lanes_of<F>;
  highest.add(z, z + whole);
  float top = highest.total();
  for (int64_t c = whole; c < n; ++c) top = larger(to_float(z[c]), top);
  return top;
}

template <class F, class T>
DP_INLINE void sum_row(const T* z, int64_t classes, int64_t label, SumsOf<kGroup>& out, int at) {
  const float z_label = to_float(z[label]);
  float rival = -INFINITY,
        top = z_label > -FLT_MAX ? z_label : -FLT_MAX;  // finite, so that masked classes are below it
  Sums<F> sums;
  for (int64_t from = 0; from < classes; from += kBlock) {
    const int64_t to = std::min(from + kBlock, classes);
    Highest<F> highest;
    visit_others<F>(highest, z, from, to, label);
    rival = larger(highest.total(), rival);
    if (from == 0) {
      top = larger(rival, top);
      sums.top = all<F>(top);
    } else if (rival > top) {
      top = rival;
      sums.rebase(all<F>(top));
    }
    Sums<F> block{sums.top};  // apart, because many small addends in a row would each be rounded to a large sum
    visit_others<F>(block, z, from, to, label);
    sums.add(block);
  }
  const bool tie = z_label == rival;  // which the lower class wins
  out.z_label[at] = z_label;
  out.before[at] = tie ? largest_of<F>(z, label) : -INFINITY;
  out.after[at] = rival;
  out.e[at] = sum(sums.e);
  out.e_times_d[at] = sum(sums.e_times_d);
  out.e_squared[at] = sum(sums.e_squared);
}

// The same for rows side by side, one in each lane: those of few classes, which alone would leave lanes empty and be
// busy with adding up the others, and those whose classes are not adjacent.
constexpr int64_t kNarrow = 128;

template <class F>
struct Side {
  F rival = all<F>(-INFINITY);
  Sums<F> sums{all<F>(-FLT_MAX)};

  // Logits of n classes, kRows floats apart, in which labels have become -inf; and the logits of the labels, where
  // these have been seen.
  template <int kRows>
  DP_INLINE void add(const float* others, F z_label, int n, bool first) {
    for (int c = 0; c < n; ++c) rival = larger(load<F>(others + c * kRows), rival);
    const F top = larger(z_label, larger(rival, sums.top));
    if (first) {
      sums.top = top;
    } else {
      sums.rebase(top);
    }
    Sums<F> block{top};  // apart, as above
    for (int c = 0; c < n; ++c) block.add(load<F>(others + c * kRows));
    sums.add(block);
  }
};

// Calls f with tiles of the rows, the first class of each and how many there are.
template <class F, int kRows, class Rows, class Use>
DP_INLINE void visit_tiles(const Rows& rows, int64_t classes, Use&& use) {
  TileOf<kRows> tile;
  for (int64_t from = 0; from < classes; from += kTile) {
    const int n = int(std::min<int64_t>(kTile, classes - from));
    rows.template load<lanes_of<F>>(tile, from, n);
    use(tile, int32_t(from), n);
  }
}

// label: [kRows], whatever beyond `size`.
template <class F, int kRows, class Rows>
DP_INLINE void sum_side_by_side(const Rows& rows, const int32_t* label, int64_t classes, int size, SumsOf<kRows>& out) {
  constexpr int kLanes = lanes_of<F>;
  Side<F> sides[kRows / kLanes];
  std::fill_n(out.z_label, kRows, -INFINITY);
  visit_tiles<F, kRows>(rows, classes, [&](TileOf<kRows>& tile, int32_t from, int n) DP_INLINE_LAMBDA {
    for (int l = 0; l < size; ++l) {
      if (label[l] < from || label[l] >= from + n) continue;
      out.z_label[l] = std::exchange(tile[label[l] - from][l], kOut);
    }
    for (int l = 0; l < size; l += kLanes) {
      sides[l / kLanes].template add<kRows>(tile[0] + l, load<F>(out.z_label + l), n, from == 0);
    }
  });
  bool tie = false;  // which the lower class wins
  for (int l = 0; l < size; l += kLanes) {
    const Side<F>& side = sides[l / kLanes];
    store(out.before + l, all<F>(-INFINITY));
    store(out.after + l, side.rival);
    store(out.e + l, side.sums.e);
    store(out.e_times_d + l, side.sums.e_times_d);
    store(out.e_squared + l, side.sums.e_squared);
    for (int i = l; i < l + kLanes; ++i) tie |= out.z_label[i] == out.after[i];
  }
  if (!tie) return;
  visit_tiles<F, kRows>(rows, classes, [&](const TileOf<kRows>& tile, int32_t from, int n) DP_INLINE_LAMBDA {
    for (int l = 0; l < size; l += kLanes) {
      F before = load<F>(out.before + l);
      for (int c = 0; c < n; ++c) {
        const IntsOf<F> is_before = load_ints<F>(label + l) > from + c;
        before = larger(select(is_before, load<F>(tile[c] + l), all<F>(kOut)), before);
      }
      store(out.before + l, before);
    }
  });
}

template <class F, int kRows>
DP_INLINE void store_stats(const SumsOf<kRows>& rows, int64_t classes, int size, float* out) {
  for (int l = 0; l < size; l += lanes_of<F>) {
    auto stats =
        finish_stats<LaneMath<F>>(load<F>(rows.z_label + l), load<F>(rows.before + l), load<F>(rows.after + l),
                                  load<F>(rows.e + l), load<F>(rows.e_times_d + l), load<F>(rows.e_squared + l));
    if (classes == 1) stats.value[kLogitMargin] = stats.value[kPMargin] = all<F>(0.0f);
    spread_fault(stats);
    store_rows(stats, size - l, out + l * kStats);
  }
}

// Up to kGroup rows and where they come from.
template <class T>
struct Group {
  const T* z[kGroup];
  int64_t row[kGroup];
  int32_t label[kGroup] = {};
  int size = 0;

  void add(const T* data, int64_t at, int64_t its_label) {
    z[size] = data, row[size] = at, label[size] = int32_t(its_label);
    ++size;
  }
};

template <int kLanes, class T>
DP_INLINE void finish_group(const Group<T>& group, int64_t class_stride, int64_t classes, float* out) {
  using F = typename Vectors<kLanes>::Floats;
  SumsOf<kGroup> rows;
  if (classes <= kNarrow || class_stride != 1) {
    const ApartRows<T> apart(group.z, group.size, class_stride);
    sum_side_by_side<F, kGroup>(apart, group.label, classes, group.size, rows);
  } else {
    if (group.size < kGroup) memset(&rows, 0, sizeof rows);
    for (int l = 0; l < group.size; ++l) sum_row<F>(group.z[l], classes, group.label[l], rows, l);
  }
  store_stats<F>(rows, classes, group.size, out);
}

template <int kLanes, class T>
DP_INLINE void finish_run(const AdjacentRows<T>& adjacent, const int32_t* label, int64_t classes, float* out) {
  using F = typename Vectors<kLanes>::Floats;
  SumsOf<kRun> rows;
  sum_side_by_side<F, kRun>(adjacent, label, classes, adjacent.size, rows);
  store_stats<F>(rows, classes, adjacent.size, out);
}

// out: the statistics of each row; NaN where the loss is not finite.
#define DP_DEFINE_FINISH(T)                                                                                            \
  DP_VERSIONS(void finish(const Group<T>& group, int64_t class_stride, int64_t classes, float* out), finish_group,     \
              (group, class_stride, classes, out))                                                                     \
  DP_VERSIONS(void finish(const AdjacentRows<T>& rows, const int32_t* label, int64_t classes, float* out), finish_run, \
              (rows, label, classes, out))
DP_FOR_LOGIT_TYPES(DP_DEFINE_FINISH)
#undef DP_DEFINE_FINISH

template <class T>
void store_group(Group<T>& group, const LogitsView& logits, const int64_t* labels, float* out) {
  float results[kGroup * kStats];
  finish(group, logits.class_stride, logits.classes, results);
  for (int l = 0; l < group.size; ++l) {
    float* stats = out + group.row[l] * kStats;
    std::copy_n(results + l * kStats, int(kStats), stats);
    if (!is_class(labels[group.row[l]], logits)) std::fill_n(stats, int(kStats), std::nanf(""));
  }
  group.size = 0;
}

template <class T>
void stats_rows(const T* data, const LogitsView& logits, const int64_t* labels, int64_t ignore, float* out,
                int64_t begin, int64_t end) {
  RowOffsets offsets(logits);
  Group<T> group;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t label = labels[row];
    if (is_ignored(label, ignore)) {
      store_no_row(out + row * kStats);
      continue;
    }
    group.add(data + offsets.at(row), row, is_class(label, logits) ? label : 0);
    if (group.size == kGroup) store_group(group, logits, labels, out);
  }
  if (group.size > 0) store_group(group, logits, labels, out);
}

// The same for rows that are neighbours.
template <class T>
void stats_runs(const T* data, const LogitsView& logits, const int64_t* labels, int64_t ignore, float* out,
                int64_t begin, int64_t end) {
  RowOffsets offsets(logits);
  for (int64_t row = begin, next; row < end; row = next) {
    next = std::min({row + kRun, end, offsets.run_end(row)});
    int32_t label[kRun] = {};
    bool any = false, all = true;
    for (int64_t r = row; r < next; ++r) {
      const bool good = is_class(labels[r], logits) && !is_ignored(labels[r], ignore);
      label[r - row] = good ? int32_t(labels[r]) : 0;
      any |= good, all &= good;
    }
    const AdjacentRows<T> rows{data + offsets.at(row), int(next - row), logits.class_stride};
    if (any) finish(rows, label, logits.classes, out + row * kStats);
    for (int64_t r = row; !all && r < next; ++r) {
      if (is_ignored(labels[r], ignore)) {  // which may be a class
        store_no_row(out + r * kStats);
      } else if (!is_class(labels[r], logits)) {
        std::fill_n(out + r * kStats, int(kStats), std::nanf(""));
      }
    }
  }
}

// kGiven: the rows are not of logits, but of statistics.
template <bool kGiven, class T>
void record_group(Group<T>& group, Record* table, int64_t examples, const int64_t* index, const int64_t* labels,
                  int64_t classes, const RecordOptions& options, int64_t* local) {
  SoftmaxStats results[kGroup];
  if constexpr (kGiven) {
    for (int l = 0; l < group.size; ++l) results[l] = given_stats(group.z[l]);
  } else {
    finish(group, 1, classes, results[0].value);
  }
  for (int l = 0; l < group.size; ++l) {
    const int64_t example = index[group.row[l]], label = labels[group.row[l]];  // which may be kNoLabel
    Record& record = table[example];
    const int fault = fault_of(record, results[l], label);
    if (fault != kSkippedKinds) {
      ++local[fault];
      continue;
    }
    update_record(record, results[l], label, options);
    if (options.steps != nullptr) options.steps[example] = options.steps[examples];
  }
  group.size = 0;
}

template <bool kGiven, class T>
void record_rows(const T* data, int64_t row_stride, int64_t classes, Record* table, int64_t examples,
                 const int64_t* index, const int64_t* labels, const RecordOptions& options,
                 const DuplicateChains& chains, int64_t* skipped, int64_t begin, int64_t end) {
  int64_t local[kSkippedKinds] = {};
  Group<T> group;
  const auto is_passed_over = [&](int64_t row) {
    if (is_ignored(labels[row], options.ignore)) return true;
    if constexpr (kGiven) return index[row] == kPadding || is_no_row(data + row * row_stride);
    return false;
  };
  for (int64_t head = begin; head < end; ++head) {
    if (!chains.is_head(head)) continue;
    for (int64_t row = head; row != DuplicateChains::kEnd; row = chains.next(row)) {
      if (is_passed_over(row)) continue;
      const int64_t label = labels[row];
      if (index[row] < 0 || index[row] >= examples) {
        ++local[kBadIndex];
      } else if ((label < 0 || label >= classes) && !(kGiven && label == kNoLabel)) {
        ++local[kBadLabel];
      } else {
        __builtin_prefetch(table + index[row], 1);  // in no cache, as a rule; there when the group is finished
        group.add(data + row * row_stride, row, label);
        if (group.size == kGroup) record_group<kGiven>(group, table, examples, index, labels, classes, options, local);
      }
    }
  }
  if (group.size > 0) record_group<kGiven>(group, table, examples, index, labels, classes, options, local);
  add_skipped(skipped, local);
}

}  // namespace

void softmax_stats(const LogitsView& logits, const int64_t* labels, int64_t ignore, float* out, int64_t begin,
                   int64_t end) {
  visit_logits(logits, [&](auto* data) {
    if (logits.row_stride == 1 && logits.class_stride != 1) {
      stats_runs(data, logits, labels, ignore, out, begin, end);
    } else {
      stats_rows(data, logits, labels, ignore, out, begin, end);
    }
  });
}

void record_stats(Record* table, int64_t examples, const int64_t* index, const LogitsView& logits,
                  const int64_t* labels, const RecordOptions& options, const DuplicateChains& chains, int64_t* skipped,
                  int64_t begin, int64_t end) {
  visit_logits(logits, [&](auto* data) {
    record_rows<false>(data, logits.row_stride, logits.classes, table, examples, index, labels, options, chains,
                       skipped, begin, end);
  });
}

void record_given_stats(Record* table, int64_t examples, const int64_t* index, const float* stats,
                        const int64_t* labels, int64_t classes, const RecordOptions& options,
                        const DuplicateChains& chains, int64_t* skipped, int64_t begin, int64_t end) {
  record_rows<true>(stats, kStats, classes, table, examples, index, labels, options, chains, skipped, begin, end);
}

}  // namespace dp::cpu
