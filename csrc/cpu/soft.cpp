// Targets that are probabilities. Logits and targets of any type become floats block by block, so that there is one
// loop for all of them.
#include "../core/soft.h"

#include <cfloat>
#include <cmath>

#include "kernels.h"
#include "rows.h"

namespace dp::cpu {
namespace {

constexpr int kBlock = 1024;

// n elements `stride` apart; those up to `padded` become `rest`.
template <class T>
DP_INLINE void read_floats(float* __restrict out, const T* at, int64_t stride, int n, int padded, float rest) {
  if (stride == 1) {
    for (int i = 0; i < n; ++i) out[i] = to_float(at[i]);
  } else {
    for (int i = 0; i < n; ++i) out[i] = to_float(at[i * stride]);
  }
  for (int i = n; i < padded; ++i) out[i] = rest;
}

template <class T>
DP_INLINE void read_tile(Tile& tile, const T* data, const int64_t* at, bool adjacent, int64_t stride, int n) {
  if (adjacent) {
    for (int c = 0; c < n; ++c) {
      for (int l = 0; l < kGroup; ++l) tile[c][l] = to_float(data[at[0] + c * stride + l]);
    }
    return;
  }
  for (int l = 0; l < kGroup; ++l) {
    for (int c = 0; c < n; ++c) tile[c][l] = to_float(data[at[l] + c * stride]);
  }
}

#define DP_FOR_TARGET_TYPES(APPLY) DP_FOR_LOGIT_TYPES(APPLY) APPLY(double)
#define DP_DEFINE_READS(T)                                                                                  \
  DP_CLONES void read(float* out, const T* at, int64_t stride, int n, int padded, float rest) {             \
    read_floats(out, at, stride, n, padded, rest);                                                          \
  }                                                                                                         \
  DP_CLONES void read(Tile& tile, const T* data, const int64_t* at, bool adjacent, int64_t stride, int n) { \
    read_tile(tile, data, at, adjacent, stride, n);                                                         \
  }
DP_FOR_TARGET_TYPES(DP_DEFINE_READS)
#undef DP_DEFINE_READS

// Where the rows of a group begin, in one of the two tensors.
struct Starts {
  int64_t at[kGroup];
  bool adjacent = false;

  // In place of rows beyond `size` comes the first.
  void finish(int size) {
    for (int l = size; l < kGroup; ++l) at[l] = at[0];
    adjacent = size == kGroup;
    for (int l = 1; l < kGroup; ++l) adjacent &= at[l] == at[0] + l;
  }
};

struct Group {
  Starts logits, targets;
  int64_t row[kGroup];
  int size = 0;
};

// Sums over classes relative to the largest logit so far. Of lanes that are one row, or of one row each.
template <class F>
struct SoftSums {
  using Doubles = DoublesOf<F>;
  F top = all<F>(-FLT_MAX);                           // finite, so that masked classes are below it
  F at_top = all<F>(0.0f), below_top = all<F>(0.0f);  // classes at the largest logit, and the sum of e over the others
  F e_times_d = all<F>(0.0f), q = all<F>(0.0f), q_times_d = all<F>(0.0f), smallest_q = all<F>(INFINITY);
  Doubles e_squared{}, e_times_q{}, q_squared{};

  DP_INLINE void add(F z, F target) {
    const F zero = all<F>(0.0f), one = all<F>(1.0f);
    const F d = z - top, clamped = at_least(all<F>(kLowest), d);
    const F e = exp_nonpositive(clamped);
    at_top += d == zero ? one : zero;
    below_top += d == zero ? zero : e;
    e_times_d += e * clamped;
    q += target;
    q_times_d += target == zero ? zero : target * d;
    smallest_q = target < smallest_q ? target : smallest_q;
    const Doubles wide_e = Doubles::from(e), wide_q = Doubles::from(target);
    e_squared.add_product(wide_e, wide_e);
    e_times_q.add_product(wide_e, wide_q);
    q_squared.add_product(wide_q, wide_q);
  }

  DP_INLINE void add(const SoftSums& o) {
    at_top += o.at_top;
    below_top += o.below_top;
    e_times_d += o.e_times_d;
    q += o.q;
    q_times_d += o.q_times_d;
    smallest_q = o.smallest_q < smallest_q ? o.smallest_q : smallest_q;
    e_squared.add(o.e_squared);
    e_times_q.add(o.e_times_q);
    q_squared.add(o.q_squared);
  }

  DP_INLINE void rebase(F new_top) {
    const F zero = all<F>(0.0f), shift = top - new_top, clamped = at_least(all<F>(kLowest), shift);
    const F factor = exp_nonpositive(clamped), e = at_top + below_top;
    e_times_d = factor * (e_times_d + clamped * e);
    q_times_d += top > all<F>(-FLT_MAX) ? shift * q : zero;
    at_top = shift == zero ? at_top : zero;
    below_top = shift == zero ? below_top : factor * e;
    const Doubles wide = Doubles::from(factor);
    e_times_q.multiply(wide);
    e_squared.multiply(wide);
    e_squared.multiply(wide);
    top = new_top;
  }
};

// What is known of a group of rows when all their classes have been seen.
struct SoftGroupSums {
  float z_label[kGroup] = {}, before[kGroup] = {}, after[kGroup] = {};
  float rest[kGroup] = {}, e_times_d[kGroup] = {}, q[kGroup] = {}, q_times_d[kGroup] = {}, e_times_q[kGroup] = {};
  float distance_squared[kGroup] = {}, smallest_q[kGroup] = {};

  DP_INLINE void set(int at, float rest_, double e_squared, double e_times_q_, double q_squared) {
    const double share = 1.0 / (1.0 + double(rest_));
    rest[at] = rest_;
    e_times_q[at] = float(e_times_q_);
    distance_squared[at] = float((e_squared * share - 2.0 * e_times_q_) * share + q_squared);
  }
};

// The class of the largest target, the lowest of several, and the two largest logits, whosever they are.
template <class F>
struct Leaders {
  IntsOf<F> index{};
  F q = all<F>(-INFINITY), first = all<F>(-INFINITY), second = all<F>(-INFINITY);

  DP_INLINE void add(F z, F target, IntsOf<F> classes, int32_t end) {
    const F its_q = classes < end ? target : all<F>(-INFINITY);
    index = its_q > q ? classes : index;
    q = its_q > q ? its_q : q;
    second = larger(z < first ? z : first, second);
    first = larger(z, first);
  }

  int32_t label() const {
    int best = 0;
    for (int l = 1; l < lanes_of<F>; ++l) {
      if (q[l] > q[best] || (q[l] == q[best] && index[l] < index[best])) best = l;
    }
    return index[best];
  }
  float rival(float z_label) const {
    float top = first[0], next = second[0];
    for (int l = 1; l < lanes_of<F>; ++l) {
      next = larger(larger(second[l], next), first[l] < top ? first[l] : top);
      top = larger(first[l], top);
    }
    return z_label == top ? next : top;
  }
};

// n elements of a row as floats, with up to a vector of `rest` behind them.
DP_INLINE const float* read_block(float* buffer, const LogitsView& view, int64_t at, int n, int padded, float rest) {
  if (view.type == ElementType::kFloat32 && view.class_stride == 1 && n == padded) {
    return static_cast<const float*>(view.data) + at;
  }
  visit_elements(view.data, view.type,
                 [&](auto* data) { read(buffer, data + at, view.class_stride, n, padded, rest); });
  return buffer;
}

inline float read_one(const LogitsView& view, int64_t at) {
  return visit_elements(view.data, view.type, [&](auto* data) { return to_float(data[at]); });
}

template <class F>
DP_INLINE void sum_row(const LogitsView& logits, const LogitsView& targets, int64_t z_at, int64_t q_at,
                       SoftGroupSums& out, int at) {
  constexpr int kLanes = lanes_of<F>;
  alignas(64) float z_buffer[kBlock], q_buffer[kBlock];
  Leaders<F> leaders;
  SoftSums<F> sums;
  IntsOf<F> lane{};
  for (int l = 0; l < kLanes; ++l) lane[l] = l;
  for (int64_t from = 0; from < logits.classes; from += kBlock) {
    const int n = int(std::min<int64_t>(kBlock, logits.classes - from)), padded = (n + kLanes - 1) / kLanes * kLanes;
    const float* z = read_block(z_buffer, logits, z_at + from * logits.class_stride, n, padded, -INFINITY);
    const float* q = read_block(q_buffer, targets, q_at + from * targets.class_stride, n, padded, 0.0f);
    for (int c = 0; c < padded; c += kLanes) {
      leaders.add(load<F>(z + c), load<F>(q + c), lane + int32_t(from + c), int32_t(logits.classes));
    }
    const float highest = largest(leaders.first);
    if (highest > sums.top[0]) sums.rebase(all<F>(highest));
    SoftSums<F> block{sums.top};  // apart, because many small addends in a row would each be rounded to a large sum
    for (int c = 0; c < padded; c += kLanes) block.add(load<F>(z + c), load<F>(q + c));
    sums.add(block);
  }
  const int64_t label = leaders.label();
  const float z_label = read_one(logits, z_at + label * logits.class_stride), rival = leaders.rival(z_label);
  float before = -INFINITY;
  if (z_label == rival) {  // a tie, which the lower class wins
    for (int64_t c = 0; c < label; ++c) before = larger(read_one(logits, z_at + c * logits.class_stride), before);
  }
  double e_squared = 0, e_times_q = 0, q_squared = 0;
  float smallest_q = INFINITY;
  for (int l = 0; l < kLanes; ++l) {
    e_squared += sums.e_squared[l];
    e_times_q += sums.e_times_q[l];
    q_squared += sums.q_squared[l];
    smallest_q = sums.smallest_q[l] < smallest_q ? sums.smallest_q[l] : smallest_q;
  }
  out.set(at, sum(sums.below_top) + (sum(sums.at_top) - 1.0f), e_squared, e_times_q, q_squared);
  out.z_label[at] = z_label;
  out.before[at] = before;
  out.after[at] = rival;
  out.e_times_d[at] = sum(sums.e_times_d);
  out.q[at] = sum(sums.q);
  out.q_times_d[at] = sum(sums.q_times_d);
  out.smallest_q[at] = smallest_q;
}

// Rows side by side, one in each lane.
template <class F>
struct Side {
  F q = all<F>(-INFINITY), z_label = all<F>(-INFINITY), before = all<F>(-INFINITY), after = all<F>(-INFINITY);
  F seen = all<F>(-INFINITY);
  SoftSums<F> sums;

  DP_INLINE void add(const Tile& logits, const Tile& targets, int lane, int n) {
    const F none = all<F>(-INFINITY);
    for (int c = 0; c < n; ++c) {
      const F z = load<F>(logits[c] + lane), target = load<F>(targets[c] + lane);
      const auto leads = target > q;
      q = leads ? target : q;
      z_label = leads ? z : z_label;
      before = leads ? seen : before;
      after = leads ? none : larger(z, after);
      seen = larger(z, seen);
    }
    sums.rebase(larger(seen, sums.top));
    SoftSums<F> block{sums.top};  // apart, as above
    for (int c = 0; c < n; ++c) block.add(load<F>(logits[c] + lane), load<F>(targets[c] + lane));
    sums.add(block);
  }
};

template <class F>
DP_INLINE void sum_side_by_side(const LogitsView& logits, const LogitsView& targets, const Group& group,
                                SoftGroupSums& out) {
  constexpr int kLanes = lanes_of<F>;
  Side<F> sides[kGroup / kLanes];
  for (int64_t from = 0; from < logits.classes; from += kTile) {
    const int n = int(std::min<int64_t>(kTile, logits.classes - from));
    Tile z, q;
    const auto fill = [&](Tile& tile, const LogitsView& view, const Starts& starts) {
      visit_elements(view.data, view.type, [&](auto* data) {
        read(tile, data + from * view.class_stride, starts.at, starts.adjacent, view.class_stride, n);
      });
    };
    fill(z, logits, group.logits);
    fill(q, targets, group.targets);
    for (int l = 0; l < group.size; l += kLanes) sides[l / kLanes].add(z, q, l, n);
  }
  for (int first = 0; first < group.size; first += kLanes) {
    const Side<F>& side = sides[first / kLanes];
    const SoftSums<F>& sums = side.sums;
    const F rest = sums.below_top + (sums.at_top - 1.0f);
    for (int l = 0; l < kLanes; ++l) {
      out.set(first + l, rest[l], sums.e_squared[l], sums.e_times_q[l], sums.q_squared[l]);
    }
    store(out.z_label + first, side.z_label);
    store(out.before + first, side.before);
    store(out.after + first, side.after);
    store(out.e_times_d + first, sums.e_times_d);
    store(out.q + first, sums.q);
    store(out.q_times_d + first, sums.q_times_d);
    store(out.smallest_q + first, sums.smallest_q);
  }
}

constexpr int64_t kNarrow = 32;

// Returns how many rows of the group are no distributions.
template <int kLanes>
DP_INLINE int64_t finish_group(const LogitsView& logits, const LogitsView& targets, const Group& group, float* out) {
  using F = typename Vectors<kLanes>::Floats;
  SoftGroupSums rows;
  if (logits.classes <= kNarrow || (logits.class_stride != 1 && targets.class_stride != 1)) {
    sum_side_by_side<F>(logits, targets, group, rows);
  } else {
    for (int l = 0; l < group.size; ++l) {
      sum_row<F>(logits, targets, group.logits.at[l], group.targets.at[l], rows, l);
    }
  }
  float results[kGroup * kStats];
  for (int l = 0; l < group.size; l += kLanes) {
    auto stats = finish_soft_stats<LaneMath<F>>(
        load<F>(rows.z_label + l), load<F>(rows.before + l), load<F>(rows.after + l), load<F>(rows.rest + l),
        load<F>(rows.e_times_d + l), load<F>(rows.q + l), load<F>(rows.q_times_d + l), load<F>(rows.e_times_q + l),
        load<F>(rows.distance_squared + l));
    if (logits.classes == 1) stats.value[kLogitMargin] = stats.value[kPMargin] = all<F>(0.0f);
    spread_fault(stats);
    store_rows(stats, results + l * kStats);
  }
  int64_t unnormalised = 0;
  for (int l = 0; l < group.size; ++l) {
    std::copy_n(results + l * kStats, int(kStats), out + group.row[l] * kStats);
    unnormalised += is_no_distribution(rows.q[l], rows.smallest_q[l]);
  }
  return unnormalised;
}

DP_VERSIONS(int64_t finish(const LogitsView& logits, const LogitsView& targets, const Group& group, float* out),
            finish_group, (logits, targets, group, out))

}  // namespace

void soft_stats(const LogitsView& logits, const LogitsView& targets, float* out, int64_t* unnormalised, int64_t begin,
                int64_t end) {
  RowOffsets z_offsets(logits), q_offsets(targets);
  int64_t local = 0;
  for (int64_t start = begin; start < end; start += kGroup) {
    Group group;
    for (int64_t row = start; row < std::min(start + kGroup, end); ++row) {
      group.logits.at[group.size] = z_offsets.at(row);
      group.targets.at[group.size] = q_offsets.at(row);
      group.row[group.size++] = row;
    }
    group.logits.finish(group.size);
    group.targets.finish(group.size);
    local += finish(logits, targets, group, out);
  }
  if (unnormalised != nullptr && local != 0) __atomic_fetch_add(unnormalised, local, __ATOMIC_RELAXED);
}

}  // namespace dp::cpu
