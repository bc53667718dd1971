#include <cmath>

#include "kernels.h"
#include "simd.h"

namespace dp::cpu {
namespace {

// Two passes over the logits of a row. Of kLanes adjacent logits, the label and classes that were seen before are
// -inf, as masked ones are, so that they weigh nothing.
struct Highest {
  Floats top = all(-INFINITY);

  DP_INLINE void add(Floats others) { top = larger(others, top); }
};

struct Sums {
  Floats top;
  Floats e = all(0.0f), e_times_d = all(0.0f), e_squared = all(0.0f);

  DP_INLINE void add(Floats others) {
    const Floats d = at_least(all(kLowest), others - top);  // keeps 0 log 0 = 0 where d is infinite, and NaN
    const Floats exponential = exp_nonpositive(d);
    e += exponential;
    e_times_d += exponential * d;
    e_squared += exponential * exponential;
  }

  DP_INLINE OtherClasses total() const { return {sum(e), sum(e_times_d), sum(e_squared)}; }
};

constexpr float kOut = -INFINITY;

// -inf in one lane, 0 in the others.
DP_INLINE Floats without_lane(int64_t lane) {
  static constexpr float kWindow[2 * kLanes - 1] = {0, 0, 0, 0, 0, 0, 0, kOut};
  return load(kWindow + kLanes - 1 - lane);
}

// -inf in all lanes but the last n.
DP_INLINE Floats last_lanes(int64_t n) {
  static constexpr float kWindow[2 * kLanes] = {kOut, kOut, kOut, kOut, kOut, kOut, kOut, kOut};
  return load(kWindow + n);
}

// The last kLanes classes of a row; a shorter row stands at the end of zeros.
template <class T>
DP_INLINE Floats load_last(const T* z, int64_t classes) {
  if (classes >= kLanes) return load(z + classes - kLanes);
  float row[kLanes] = {};
  for (int64_t c = 0; c < classes; ++c) row[kLanes - classes + c] = to_float(z[c]);
  return load(row);
}

template <class T, class Pass>
DP_INLINE void visit_others(Pass& pass, const T* z, int64_t classes, int64_t label) {
  const int64_t whole = classes - classes % kLanes, label_at = label - label % kLanes;
  int64_t c = 0;
  for (; c < whole && c < label_at; c += kLanes) pass.add(load(z + c));
  if (c < whole) {
    pass.add(load(z + c) + without_lane(label - c));
    for (c += kLanes; c < whole; c += kLanes) pass.add(load(z + c));
  }
  if (c < classes) {  // looks back at classes seen before, so that it need not look beyond the row
    Floats others = load_last(z, classes) + last_lanes(classes - whole);
    if (label >= whole) others += without_lane(label - classes + kLanes);
    pass.add(others);
  }
}

template <class T>
DP_INLINE SoftmaxStats row_stats(const T* z, int64_t classes, int64_t label) {
  Highest highest;
  visit_others(highest, z, classes, label);
  const float z_label = to_float(z[label]), rival = largest(highest.top);
  float before = -INFINITY, after = rival;
  if (z_label == rival) {  // a tie, which the lower class wins
    for (int64_t c = 0; c < label; ++c) before = larger(to_float(z[c]), before);
  }
  Sums sums{all(larger(z_label, rival))};
  visit_others(sums, z, classes, label);
  return finish_stats(z_label, before, after, sums.total(), classes == 1);
}

// Rows of few classes go side by side, one in each lane: a row alone would leave most lanes empty, and the
// logarithm and the root at its end would be those of a single row.
constexpr int64_t kNarrow = 32;

template <class T>
DP_INLINE void side_by_side_stats(const T* const* rows, const int64_t* labels, int64_t classes, SoftmaxStats* out) {
  float z[kNarrow][kLanes];
  for (int l = 0; l < kLanes; ++l) {
    for (int64_t c = 0; c < classes; ++c) z[c][l] = to_float(rows[l][c]);
  }
  Ints label;
  for (int l = 0; l < kLanes; ++l) label[l] = int32_t(labels[l]);
  Floats z_label = all(0.0f), before = all(-INFINITY), after = all(-INFINITY);
  for (int32_t c = 0; c < classes; ++c) {
    const Floats x = load(z[c]), out_of_it = all(-INFINITY);
    z_label = label == c ? x : z_label;
    before = larger(label > c ? x : out_of_it, before);
    after = larger(label < c ? x : out_of_it, after);
  }
  Sums sums{larger(z_label, larger(before, after))};
  for (int32_t c = 0; c < classes; ++c) {
    const Floats x = load(z[c]);
    sums.add(label == c ? all(-INFINITY) : x);
  }
  auto stats = finish_stats<LaneMath>(z_label, before, after, sums.e, sums.e_times_d, sums.e_squared);
  if (classes == 1) stats.value[kLogitMargin] = stats.value[kPMargin] = all(0.0f);
  for (int l = 0; l < kLanes; ++l) {
    for (int s = 0; s < kStats; ++s) out[l].value[s] = stats.value[s][l];
  }
}

// Up to kLanes rows, not necessarily neighbours, that are worked on together.
template <class T>
struct Group {
  const T* z[kLanes] = {};
  int64_t row[kLanes] = {}, label[kLanes] = {};
  int size = 0;

  void add(const T* data, int64_t at, int64_t its_label) {
    z[size] = data, row[size] = at, label[size] = its_label;
    ++size;
  }
};

// results[l] becomes that of the l-th row; the group can be filled anew, in place of the rows it has. Never inlined:
// which products are fused with sums, compilers choose for each copy anew, and the bits of a row must not depend on
// the rows around it or on the operator.
#define DP_DEFINE_FINISH(T)                                                                                  \
  DP_CLONES __attribute__((noinline)) void finish(Group<T>& group, int64_t classes, SoftmaxStats* results) { \
    if (classes <= kNarrow) {                                                                                \
      for (int l = group.size; l < kLanes; ++l) group.z[l] = group.z[0], group.label[l] = group.label[0];    \
      side_by_side_stats(group.z, group.label, classes, results);                                            \
    } else {                                                                                                 \
      for (int l = 0; l < group.size; ++l) results[l] = row_stats(group.z[l], classes, group.label[l]);      \
    }                                                                                                        \
  }
DP_FOR_LOGIT_TYPES(DP_DEFINE_FINISH)
#undef DP_DEFINE_FINISH

template <class T>
void stats_rows(const T* data, const LogitsView& logits, const int64_t* labels, float* out, int64_t begin,
                int64_t end) {
  SoftmaxStats results[kLanes];
  for (int64_t start = begin; start < end; start += kLanes) {
    Group<T> group;
    for (int64_t row = start; row < end && group.size < kLanes; ++row) {
      group.add(data + row * logits.row_stride, row, is_class(labels[row], logits) ? labels[row] : 0);
    }
    finish(group, logits.classes, results);
    for (int l = 0; l < group.size; ++l) {
      const bool known = is_finite(results[l].value[kLoss]) && is_class(labels[start + l], logits);
      float* stats = out + (start + l) * kStats;
      for (int s = 0; s < kStats; ++s) stats[s] = known ? results[l].value[s] : std::nanf("");
    }
  }
}

// kGiven: the rows are not of logits, but of statistics.
template <bool kGiven, class T>
void record_group(Group<T>& group, Record* table, const int64_t* index, int64_t classes, int64_t* local) {
  SoftmaxStats results[kLanes];
  if constexpr (kGiven) {
    for (int l = 0; l < group.size; ++l) results[l] = given_stats(group.z[l]);
  } else {
    finish(group, classes, results);
  }
  for (int l = 0; l < group.size; ++l) {
    Record& record = table[index[group.row[l]]];
    const int fault = fault_of(record, results[l], group.label[l]);
    if (fault == kSkippedKinds) {
      update_record(record, results[l], group.label[l]);
    } else {
      ++local[fault];
    }
  }
  group.size = 0;
}

template <bool kGiven, class T>
void record_rows(const T* data, int64_t row_stride, int64_t classes, Record* table, int64_t examples,
                 const int64_t* index, const int64_t* labels, const DuplicateChains& chains, int64_t* skipped,
                 int64_t begin, int64_t end) {
  int64_t local[kSkippedKinds] = {};
  Group<T> group;
  for (int64_t head = begin; head < end; ++head) {
    if (!chains.is_head(head) || (kGiven && index[head] == kPadding)) continue;
    for (int64_t row = head; row != DuplicateChains::kEnd; row = chains.next(row)) {
      if (index[row] < 0 || index[row] >= examples) {
        ++local[kBadIndex];
      } else if (labels[row] < 0 || labels[row] >= classes) {
        ++local[kBadLabel];
      } else {
        __builtin_prefetch(table + index[row], 1);  // in no cache, as a rule; there when the group is finished
        group.add(data + row * row_stride, row, labels[row]);
        if (group.size == kLanes) record_group<kGiven>(group, table, index, classes, local);
      }
    }
  }
  if (group.size > 0) record_group<kGiven>(group, table, index, classes, local);
  add_skipped(skipped, local);
}

}  // namespace

void softmax_stats(const LogitsView& logits, const int64_t* labels, float* out, int64_t begin, int64_t end) {
  visit_logits(logits, [&](auto* data) { stats_rows(data, logits, labels, out, begin, end); });
}

void record_stats(Record* table, int64_t examples, const int64_t* index, const LogitsView& logits,
                  const int64_t* labels, const DuplicateChains& chains, int64_t* skipped, int64_t begin, int64_t end) {
  visit_logits(logits, [&](auto* data) {
    record_rows<false>(data, logits.row_stride, logits.classes, table, examples, index, labels, chains, skipped, begin,
                       end);
  });
}

void record_given_stats(Record* table, int64_t examples, const int64_t* index, const float* stats,
                        const int64_t* labels, int64_t classes, const DuplicateChains& chains, int64_t* skipped,
                        int64_t begin, int64_t end) {
  record_rows<true>(stats, kStats, classes, table, examples, index, labels, chains, skipped, begin, end);
}

}  // namespace dp::cpu
