#include <limits>

#include "kernels.h"
#include "simd.h"

namespace dp::cpu {
namespace {

struct RowResult {
  SoftmaxStats stats;
  bool finite;
};

// Wide rows use kLanes accumulators; the rest, and rows of few classes, go one class at a time.
template <class T>
DP_INLINE float segment_max(const T* z, int64_t n, float& probe) {
  float top = -INFINITY;
  int64_t c = 0;
  if (n >= kLanes) {
    float lane_top[kLanes], lane_probe[kLanes];
    for (int l = 0; l < kLanes; ++l) lane_top[l] = -INFINITY, lane_probe[l] = 0.0f;
    for (; c + kLanes <= n; c += kLanes) {
      for (int l = 0; l < kLanes; ++l) {
        const float value = to_float(z[c + l]);
        lane_top[l] = value > lane_top[l] ? value : lane_top[l];
        lane_probe[l] += finite_probe(value);
      }
    }
    for (int l = 0; l < kLanes; ++l) top = larger(lane_top[l], top), probe += lane_probe[l];
  }
  for (; c < n; ++c) top = larger(to_float(z[c]), top), probe += finite_probe(to_float(z[c]));
  return top;
}

template <class T>
DP_INLINE void add_segment(OtherClasses& sums, const T* z, int64_t n, float top) {
  int64_t c = 0;
  if (n >= kLanes) {
    float e[kLanes] = {}, e_times_d[kLanes] = {}, e_squared[kLanes] = {};
    for (; c + kLanes <= n; c += kLanes) {
      for (int l = 0; l < kLanes; ++l) {
        float d = to_float(z[c + l]) - top;
        d = d < -110.0f ? -110.0f : d;
        const float exponential = exp_nonpositive(d);
        e[l] += exponential;
        e_times_d[l] += exponential * d;
        e_squared[l] += exponential * exponential;
      }
    }
    for (int l = 0; l < kLanes; ++l) sums.add(OtherClasses{e[l], e_times_d[l], e_squared[l]});
  }
  for (; c < n; ++c) sums.add(to_float(z[c]), top);
}

template <class T>
DP_INLINE RowResult row_stats(const T* z, int64_t classes, int64_t label) {
  const T* rest = z + label + 1;
  const int64_t rest_size = classes - label - 1;
  const float z_label = to_float(z[label]);
  float probe = finite_probe(z_label);
  const float before = segment_max(z, label, probe);
  const float after = segment_max(rest, rest_size, probe);
  if (probe != 0.0f) return {{}, false};  // NaN compares unequal
  const float top = larger(z_label, larger(before, after));
  OtherClasses others;
  add_segment(others, z, label, top);
  add_segment(others, rest, rest_size, top);
  return {finish_stats(z_label, before, after, others), true};
}

template <class T>
DP_INLINE void stats_rows(const T* data, const LogitsView& logits, const int64_t* labels,
                                                      float* out, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t label = labels[row];
    const bool label_ok = label >= 0 && label < logits.classes;
    const RowResult r =
        label_ok ? row_stats(data + row * logits.row_stride, logits.classes, label) : RowResult{{}, false};
    for (int s = 0; s < kStats; ++s) {
      out[row * kStats + s] = r.finite ? r.stats.value[s] : std::numeric_limits<float>::quiet_NaN();
    }
  }
}

template <class T>
DP_INLINE void record_rows(const T* data, Record* table, int64_t examples,
                                                       const int64_t* index, const LogitsView& logits,
                                                       const int64_t* labels, const DuplicateChains& chains,
                                                       int64_t* skipped, int64_t begin, int64_t end) {
  int64_t local[kSkippedKinds] = {};
  for (int64_t head = begin; head < end; ++head) {
    if (!chains.is_head(head)) continue;
    for (int64_t row = head; row != DuplicateChains::kEnd; row = chains.next(row)) {
      const int64_t label = labels[row];
      if (index[row] < 0 || index[row] >= examples) {
        ++local[kBadIndex];
      } else if (label < 0 || label >= logits.classes) {
        ++local[kBadLabel];
      } else {
        const RowResult r = row_stats(data + row * logits.row_stride, logits.classes, label);
        if (r.finite) {
          update_record(table[index[row]], r.stats, label);
        } else {
          ++local[kNotFinite];
        }
      }
    }
  }
  add_skipped(skipped, local);
}

// Function multiversioning does not take templates: one plain function per element type.
#define DP_FOR_LOGIT_TYPES(APPLY) APPLY(float) APPLY(BFloat16) APPLY(Float16)

#define DP_DEFINE_ROWS(T)                                                                                          \
  DP_CLONES void clone_stats_rows(const T* data, const LogitsView& logits, const int64_t* labels, float* out,      \
                                  int64_t begin, int64_t end) {                                                    \
    stats_rows(data, logits, labels, out, begin, end);                                                             \
  }                                                                                                                \
  DP_CLONES void clone_record_rows(const T* data, Record* table, int64_t examples, const int64_t* index,           \
                                   const LogitsView& logits, const int64_t* labels, const DuplicateChains& chains, \
                                   int64_t* skipped, int64_t begin, int64_t end) {                                 \
    record_rows(data, table, examples, index, logits, labels, chains, skipped, begin, end);                        \
  }
DP_FOR_LOGIT_TYPES(DP_DEFINE_ROWS)
#undef DP_DEFINE_ROWS

template <class F>
void visit_logits(const LogitsView& logits, F&& f) {
  visit_elements(logits.data, logits.type, [&](auto* data) {
    if constexpr (!std::is_same_v<decltype(data), const double*>) f(data);  // the caller refuses float64
  });
}

}  // namespace

void softmax_stats(const LogitsView& logits, const int64_t* labels, float* out, int64_t begin, int64_t end) {
  visit_logits(logits, [&](auto* data) { clone_stats_rows(data, logits, labels, out, begin, end); });
}

void record_stats(Record* table, int64_t examples, const int64_t* index, const LogitsView& logits,
                  const int64_t* labels, const DuplicateChains& chains, int64_t* skipped, int64_t begin, int64_t end) {
  visit_logits(logits, [&](auto* data) {
    clone_record_rows(data, table, examples, index, logits, labels, chains, skipped, begin, end);
  });
}

}  // namespace dp::cpu
