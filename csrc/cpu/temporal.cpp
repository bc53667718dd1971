#include "../core/temporal.h"

#include <cmath>

#include "kernels.h"
#include "rows.h"

namespace dp::cpu {
namespace {

// The next kLanes elements; where only n are left, `rest` stands for the others.
template <class T>
DP_INLINE Floats load_left(const T* at, int64_t n, float rest) {
  if (n >= kLanes) return load(at);
  float x[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) x[i] = i < n ? to_float(at[i]) : rest;
  return load(x);
}

DP_INLINE void store_left(float* at, Floats x, int64_t n) {
  if (n >= kLanes) {
    memcpy(at, &x, sizeof x);
  } else {
    for (int64_t i = 0; i < n; ++i) at[i] = x[i];
  }
}

DP_INLINE Floats exp_clamped(Floats x) { return exp_nonpositive(at_least(all(kLowest), x)); }

template <class T>
DP_INLINE Normalizer normalizer(const T* z, int64_t classes) {
  Floats top = all(-INFINITY), e = all(0.0f);
  for (int64_t c = 0; c < classes; c += kLanes) top = larger(load_left(z + c, classes - c, -INFINITY), top);
  const float highest = largest(top);
  for (int64_t c = 0; c < classes; c += kLanes) e += exp_clamped(load_left(z + c, classes - c, -INFINITY) - highest);
  return {highest, std::log(sum(e))};
}

// Sum of p |log p - last log p|; log_p [classes] holds the last and becomes that of this row.
template <class T>
DP_INLINE float change_log_p(const T* z, int64_t classes, const Normalizer& n, float* log_p) {
  Floats change = all(0.0f);
  for (int64_t c = 0; c < classes; c += kLanes) {
    const Floats z_left = load_left(z + c, classes - c, -INFINITY);
    const Floats x = larger((z_left - n.top) - n.log_sum, all(kLowestLogP));
    const Floats difference = x - load_left(log_p + c, classes - c, 0.0f);
    change += exp_clamped(x) * larger(difference, -difference);
    store_left(log_p + c, x, classes - c);
  }
  return sum(change);
}

template <class T>
DP_INLINE void temporal_rows(const T* data, const TemporalView& state, const int64_t* index, const LogitsView& logits,
                             const int64_t* labels, int64_t ignore, const Record* records,
                             const DuplicateChains& chains, int64_t* skipped, int64_t begin, int64_t end) {
  int64_t local[kSkippedKinds] = {};
  for (int64_t head = begin; head < end; ++head) {
    if (!chains.is_head(head)) continue;
    for (int64_t row = head; row != DuplicateChains::kEnd; row = chains.next(row)) {
      if (is_ignored(labels[row], ignore)) continue;
      const int64_t example = index[row];
      if (example < 0 || example >= state.examples) {
        ++local[kBadIndex];
        continue;
      }
      if (!is_class(labels[row], logits)) {
        ++local[kBadLabel];
        continue;
      }
      __builtin_prefetch(state.row(example), 1);  // in no cache, as a rule; there when the logits have been read
      const T* z = data + row * logits.row_stride;
      const Normalizer n = normalizer(z, logits.classes);
      const float z_label = to_float(z[labels[row]]);
      if (!is_finite(n.log_p(z_label))) {
        ++local[kNotFinite];
        continue;
      }
      if (records != nullptr && has_other_label(records[example], labels[row])) {
        ++local[kChangedLabel];
        continue;
      }
      const float p_label = std::exp(n.clamped_log_p(z_label));
      const float change = state.with_changes ? change_log_p(z, logits.classes, n, state.log_p(example)) : 0.0f;
      update_temporal(state.row(example), state, p_label, change);
    }
  }
  add_skipped(skipped, local);
}

#define DP_DEFINE_ROWS(T)                                                                                    \
  DP_CLONES void clone_temporal_rows(const T* data, const TemporalView& state, const int64_t* index,         \
                                     const LogitsView& logits, const int64_t* labels, int64_t ignore,        \
                                     const Record* records, const DuplicateChains& chains, int64_t* skipped, \
                                     int64_t begin, int64_t end) {                                           \
    temporal_rows(data, state, index, logits, labels, ignore, records, chains, skipped, begin, end);         \
  }
DP_FOR_LOGIT_TYPES(DP_DEFINE_ROWS)
#undef DP_DEFINE_ROWS

}  // namespace

void record_temporal(const TemporalView& state, const int64_t* index, const LogitsView& logits, const int64_t* labels,
                     int64_t ignore, const Record* records, const DuplicateChains& chains, int64_t* skipped,
                     int64_t begin, int64_t end) {
  visit_logits(logits, [&](auto* data) {
    clone_temporal_rows(data, state, index, logits, labels, ignore, records, chains, skipped, begin, end);
  });
}

}  // namespace dp::cpu
