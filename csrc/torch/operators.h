// The arguments of each operator, checked and turned into views once for both devices.
#pragma once

#include <optional>

#include "tensors.h"

namespace dp {

inline int64_t ignored_label(const std::optional<int64_t>& label) { return label ? *label : kNoLabel; }

inline void check_logit_type(const Logits& logits) {
  STD_TORCH_CHECK(logits.view.type != ElementType::kFloat64, "logits: expected float32, bfloat16 or float16");
}

// A label for each row, or a target of the same shape as the logits.
inline void check_labels(const Tensor& labels, const Logits& logits) {
  STD_TORCH_CHECK(labels.numel() == logits.view.rows && labels.scalar_type() == ScalarType::Long,
                  "labels: wrong shape or dtype, expected one int64 for each row of logits");
}

// [B, C], for kernels that record at once.
struct PlainArguments {
  Logits logits;
  Tensor labels;

  PlainArguments(const Tensor& z, const Tensor& y) : logits(Logits::plain(z)), labels(dense(y)) {
    check_logit_type(logits);
    check_labels(labels, logits);
  }
};

// [B, C, ...], in place.
struct StatsArguments {
  Logits logits;
  Tensor labels;

  StatsArguments(const Tensor& z, const Tensor& y) : logits(Logits::of_classes(z)), labels(dense(y)) {
    check_logit_type(logits);
    check_labels(labels, logits);
  }
};

inline Tensor new_stats(const Logits& logits) {
  return torch::stable::new_empty(logits.tensor, logits.rows_and(kStats), ScalarType::Float);
}
inline float* floats(Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); }

struct SoftArguments {
  Logits logits, targets;
  int64_t* unnormalised = nullptr;

  SoftArguments(const Tensor& z, const Tensor& q, const std::optional<Tensor>& counter)
      : logits(Logits::of_classes(z)), targets(Logits::of_classes(q)) {
    check_logit_type(logits);
    STD_TORCH_CHECK(z.dim() == q.dim(), "targets: expected the shape of the logits");
    for (int64_t d = 0; d < z.dim(); ++d) {
      STD_TORCH_CHECK(z.size(d) == q.size(d), "targets: expected the shape of the logits");
    }
    if (counter) {
      STD_TORCH_CHECK(counter->numel() == 1, "unnormalised: expected one counter");
      unnormalised = state<int64_t>(*counter, ScalarType::Long, "unnormalised");
    }
  }
};

inline BinaryType binary_type(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Bool:
      return BinaryType::kBool;
    case ScalarType::Byte:
      return BinaryType::kUInt8;
    case ScalarType::Int:
      return BinaryType::kInt32;
    case ScalarType::Long:
      return BinaryType::kInt64;
    case ScalarType::Float:
      return BinaryType::kFloat32;
    case ScalarType::Double:
      return BinaryType::kFloat64;
    case ScalarType::BFloat16:
      return BinaryType::kBFloat16;
    case ScalarType::Half:
      return BinaryType::kFloat16;
    default:
      STD_TORCH_CHECK(false, "labels: expected bool, uint8, int32, int64 or floating point");
  }
}

struct SigmoidArguments {
  Logits logits;
  Tensor tensor;
  BinaryLabels labels;

  SigmoidArguments(const Tensor& z, const Tensor& y, const std::optional<int64_t>& ignore)
      : logits(Logits::of_elements(z)),
        tensor(dense(y)),
        labels{tensor.const_data_ptr(), binary_type(tensor), ignored_label(ignore)} {
    check_logit_type(logits);
    STD_TORCH_CHECK(tensor.numel() == logits.view.rows, "labels: expected one for each logit");
  }
};

// stats [..., kStats], and what goes with each row.
struct ReduceArguments {
  Tensor stats;
  std::optional<Tensor> owner, weight, labels;
  RowsView rows;
  int64_t* skipped = nullptr;

  ReduceArguments(const Tensor& s, int64_t examples, const std::optional<Tensor>& o, const std::optional<Tensor>& w,
                  const std::optional<Tensor>& y, const std::optional<Tensor>& counters)
      : stats(dense(s)) {
    STD_TORCH_CHECK(
        stats.dim() > 1 && stats.size(stats.dim() - 1) == kStats && stats.scalar_type() == ScalarType::Float,
        "stats: expected float32 [..., ", int(kStats), "]");
    rows = {
        static_cast<const float*>(stats.const_data_ptr()), stats.numel() / kStats, examples, nullptr, nullptr, nullptr};
    STD_TORCH_CHECK(examples >= 0 && (o || (examples == 0 ? rows.rows == 0 : rows.rows % examples == 0)),
                    "examples: expected a number that divides that of the rows, or owners");
    rows.owner = column<int64_t>(o, owner, ScalarType::Long, "owner");
    rows.weight = column<float>(w, weight, ScalarType::Float, "weight");
    rows.labels = column<int64_t>(y, labels, ScalarType::Long, "labels");
    if (counters) skipped = skipped_counts(*counters);
  }
  Tensor new_output() const { return torch::stable::new_empty(stats, {rows.examples, int64_t(kStats)}); }
  Tensor new_labels() const { return torch::stable::new_empty(stats, {rows.examples}, ScalarType::Long); }

 private:
  template <class T>
  const T* column(const std::optional<Tensor>& given, std::optional<Tensor>& kept, ScalarType type, const char* name) {
    if (!given) return nullptr;
    kept = dense(*given);
    STD_TORCH_CHECK(kept->numel() == rows.rows && kept->scalar_type() == type, name,
                    ": wrong shape or dtype, expected one value for each row");
    return static_cast<const T*>(kept->const_data_ptr());
  }
};

inline Record* record_table(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(t.dim() == 2 && t.size(1) * sizeof(float) == sizeof(Record), name, ": expected [examples, 16]");
  Record* table = reinterpret_cast<Record*>(state<float>(t, ScalarType::Float, name));
  STD_TORCH_CHECK(reinterpret_cast<uintptr_t>(table) % alignof(Record) == 0, name,
                  ": expected data aligned to 64 bytes");
  return table;
}

// A batch of `rows` rows, and the table of records that it goes to.
struct RecordsArguments {
  Tensor index;
  Record* table;
  int64_t examples;
  int64_t* skipped;

  RecordsArguments(const Tensor& t, const Tensor& i, int64_t rows, const Tensor& counters) : index(dense(i)) {
    check_vector(index, rows, ScalarType::Long, "index");
    table = record_table(t, "table");
    examples = t.size(0);
    skipped = skipped_counts(counters);
  }
};

inline RecordOptions record_options(int64_t examples, int64_t ignore, double right_from, double decay,
                                    const std::optional<Tensor>& steps) {
  STD_TORCH_CHECK(right_from > 0 && right_from <= 1, "right_from: expected a number in (0, 1], got ", right_from);
  STD_TORCH_CHECK(decay >= 0 && decay < 1, "decay: expected a number in [0, 1), got ", decay);
  RecordOptions options{ignore, float(right_from), float(decay), nullptr};
  if (steps) {
    STD_TORCH_CHECK(steps->numel() == examples + 1, "steps: expected [examples + 1]");
    options.steps = state<int32_t>(*steps, ScalarType::Int, "steps");
  }
  return options;
}

struct RecordStatsArguments : PlainArguments, RecordsArguments {
  RecordOptions options;

  RecordStatsArguments(const Tensor& t, const Tensor& i, const Tensor& z, const Tensor& y, const Tensor& counters,
                       const std::optional<int64_t>& ignore, double decay, const std::optional<Tensor>& steps)
      : PlainArguments(z, y),
        RecordsArguments(t, i, logits.view.rows, counters),
        options(record_options(examples, ignored_label(ignore), 1.0, decay, steps)) {}
};

struct RecordGivenStatsArguments : RecordsArguments {
  Tensor stats, labels;
  int64_t rows;
  RecordOptions options;

  RecordGivenStatsArguments(const Tensor& t, const Tensor& i, const Tensor& s, const Tensor& y, const Tensor& counters,
                            double right_from, double decay, const std::optional<Tensor>& steps)
      : RecordsArguments(t, i, i.numel(), counters),
        stats(dense(s)),
        labels(dense(y)),
        rows(index.size(0)),
        options(record_options(examples, kNoLabel, right_from, decay, steps)) {
    STD_TORCH_CHECK(stats.dim() == 2 && stats.size(0) == rows && stats.size(1) == kStats &&
                        stats.scalar_type() == ScalarType::Float,
                    "stats: expected float32 [batch, ", int(kStats), "]");
    check_vector(labels, rows, ScalarType::Long, "labels");
  }
  const float* data() const { return static_cast<const float*>(stats.const_data_ptr()); }
};

struct RecordTemporalArguments : PlainArguments {
  Tensor index;
  TemporalView table;
  const Record* records = nullptr;
  int64_t* skipped;

  RecordTemporalArguments(const Tensor& t, const Tensor& i, const Tensor& z, const Tensor& y, int64_t window,
                          double decay, const Tensor& counters, const std::optional<Tensor>& r)
      : PlainArguments(z, y), index(dense(i)) {
    check_vector(index, logits.view.rows, ScalarType::Long, "index");
    STD_TORCH_CHECK(window >= 3 && window < (1 << 24), "window: expected at least 3 presentations, got ", window);
    STD_TORCH_CHECK(decay > 0 && decay <= 1, "decay: expected a number in (0, 1], got ", decay);
    const int64_t width = t.dim() == 2 ? t.size(1) : 0, wide = TemporalView::wide(window, logits.view.classes);
    STD_TORCH_CHECK(logits.view.classes > 0 && (width == TemporalView::narrow(window) || width == wide),
                    "table: expected [examples, ", TemporalView::narrow(window), " or ", wide, "]");
    table = {state<float>(t, ScalarType::Float, "table"), t.size(0), width, window, float(decay), width == wide};
    if (r) {
      records = record_table(*r, "records");
      STD_TORCH_CHECK(r->size(0) == t.size(0), "records: expected as many examples as the table has, ", t.size(0));
    }
    skipped = skipped_counts(counters);
  }
};

// Values on the CPU are looked at; others would have to be waited for. One more value may be allowed.
inline bool inside(const Tensor& values, int64_t limit, int64_t also = 0) {
  if (!values.is_cpu()) return true;
  const int64_t* at = indices(values);
  const int64_t n = values.size(0), stride = values.stride(0);
  bool all = true;  // no early exit, so that the loop vectorises: nearly always all are inside
  for (int64_t i = 0; i < n; ++i) all &= uint64_t(at[i * stride]) < uint64_t(limit) || at[i * stride] == also;
  return all;
}

// What an operator's arguments should be, asked without raising.
class Look {
 public:
  explicit Look(const Tensor& batch) : cpu_(batch.is_cpu()), device_(batch.get_device_index()) {}

  bool is(const Tensor& t, int64_t dim, ScalarType type) const {
    return t.dim() == dim && t.scalar_type() == type && t.is_cpu() == cpu_ && t.get_device_index() == device_;
  }
  bool is_vector(const Tensor& t, int64_t size, ScalarType type) const { return is(t, 1, type) && t.size(0) == size; }
  bool is_state(const Tensor& t, int64_t rows, int64_t columns, ScalarType type) const {
    return is(t, 2, type) && t.size(0) == rows && t.size(1) == columns && t.is_contiguous();
  }
  bool is_counters(const Tensor& t) const { return is_vector(t, kSkippedKinds, ScalarType::Long) && t.is_contiguous(); }

 private:
  bool cpu_;
  int32_t device_;
};

// A batch of logits, and a table of any width to record it in.
inline bool accepts_rows(const Tensor& table, const Tensor& index, const Tensor& logits, const Tensor& labels,
                         const Tensor& skipped, const std::optional<int64_t>& ignore) {
  const Look look(logits);
  const ScalarType type = logits.scalar_type();
  if (type != ScalarType::Float && type != ScalarType::BFloat16 && type != ScalarType::Half) return false;
  if (logits.dim() != 2 || table.dim() != 2 || logits.size(1) == 0 || logits.stride(1) != 1) return false;
  return look.is_vector(labels, logits.size(0), ScalarType::Long) &&
         look.is_vector(index, logits.size(0), ScalarType::Long) &&
         look.is_state(table, table.size(0), table.size(1), ScalarType::Float) && look.is_counters(skipped) &&
         inside(index, table.size(0)) && inside(labels, logits.size(1), ignore.value_or(0));
}

inline bool are_records(const Tensor& table) {
  return table.size(1) * sizeof(float) == sizeof(Record) &&
         reinterpret_cast<uintptr_t>(table.const_data_ptr()) % alignof(Record) == 0;
}

inline bool accepts_stats(const Tensor& table, const Tensor& index, const Tensor& logits, const Tensor& labels,
                          const Tensor& skipped, const std::optional<int64_t>& ignore, double decay,
                          const std::optional<Tensor>& steps) {
  if (!accepts_rows(table, index, logits, labels, skipped, ignore) || !are_records(table)) return false;
  return decay >= 0 && decay < 1 &&
         (!steps || (Look(logits).is_vector(*steps, table.size(0) + 1, ScalarType::Int) && steps->is_contiguous()));
}

inline bool accepts_temporal(const Tensor& table, const Tensor& index, const Tensor& logits, const Tensor& labels,
                             int64_t window, double decay, const Tensor& skipped, const std::optional<Tensor>& records,
                             const std::optional<int64_t>& ignore) {
  if (!accepts_rows(table, index, logits, labels, skipped, ignore) || window < 3 || !(decay > 0 && decay <= 1))
    return false;
  const int64_t examples = table.size(0), width = table.size(1);
  if (width != TemporalView::narrow(window) && width != TemporalView::wide(window, logits.size(1))) return false;
  return !records ||
         (records->dim() == 2 && Look(logits).is_state(*records, examples, records->size(1), ScalarType::Float) &&
          are_records(*records));
}

inline bool accepts_gradients(const Tensor& count, const Tensor& mean, const Tensor& m2, const Tensor& index,
                              const Tensor& gradients, const std::optional<Tensor>& scale,
                              const std::optional<Tensor>& pixels, const Tensor& skipped) {
  const Look look(gradients);
  const ScalarType type = gradients.scalar_type();
  if (type != ScalarType::Float && type != ScalarType::BFloat16 && type != ScalarType::Half &&
      type != ScalarType::Double) {
    return false;
  }
  if (gradients.dim() < 2 || gradients.size(1) == 0 || count.dim() != 1) return false;
  const int64_t rows = gradients.size(0), examples = count.size(0);
  int64_t size = 1;
  for (int64_t d = 2; d < gradients.dim(); ++d) size *= gradients.size(d);
  if (pixels && (pixels->dim() != 1 || !look.is(*pixels, 1, ScalarType::Long) || !inside(*pixels, size))) return false;
  const int64_t kept = pixels ? pixels->size(0) : size;
  const ScalarType narrow = ScalarType::BFloat16;
  return size > 0 && kept > 0 && look.is_vector(count, examples, ScalarType::Int) && count.is_contiguous() &&
         look.is_state(mean, examples, kept, ScalarType::Float) &&
         look.is_state(m2, examples, kept, m2.scalar_type() == narrow ? narrow : ScalarType::Float) &&
         look.is_vector(index, rows, ScalarType::Long) && (!scale || look.is_vector(*scale, rows, ScalarType::Float)) &&
         look.is_counters(skipped) && inside(index, examples);
}

// An operator that does its work if there is nothing to complain of; else it does nothing, and Python, which knows
// better how to complain, does so. One call in place of two, since a call costs as much as the work on a small batch.
template <auto kAccepts, auto kWork>
struct Try;

template <class... A, bool (*kAccepts)(A...), void (*kWork)(A...)>
struct Try<kAccepts, kWork> {
  static bool run(A... arguments) {
    const bool good = kAccepts(arguments...);
    if (good) kWork(arguments...);
    return good;
  }
};

// Running moments: count [examples], mean and m2 [examples, pixels].
inline MomentsView moments_view(const Tensor& count, const Tensor& mean, const Tensor& m2) {
  STD_TORCH_CHECK(count.dim() == 1 && mean.dim() == 2 && mean.size(0) == count.size(0) && m2.dim() == 2 &&
                      m2.size(0) == mean.size(0) && m2.size(1) == mean.size(1),
                  "expected count [examples], mean and m2 [examples, pixels]");
  const bool narrow = m2.scalar_type() == ScalarType::BFloat16;
  void* m2_data = narrow ? static_cast<void*>(state<BFloat16>(m2, ScalarType::BFloat16, "m2"))
                         : static_cast<void*>(state<float>(m2, ScalarType::Float, "m2"));
  return {state<int32_t>(count, ScalarType::Int, "count"),
          state<float>(mean, ScalarType::Float, "mean"),
          m2_data,
          narrow,
          count.size(0),
          mean.size(1)};
}

struct RecordGradientsArguments {
  Gradients gradients;
  MomentsView moments;
  Tensor index;
  std::optional<Tensor> scale_tensor, subset_tensor;
  const float* scale = nullptr;
  const int64_t* subset = nullptr;
  int64_t* skipped;

  RecordGradientsArguments(const Tensor& count, const Tensor& mean, const Tensor& m2, const Tensor& i, const Tensor& g,
                           const std::optional<Tensor>& s, const std::optional<Tensor>& pixels, const Tensor& counters)
      : gradients(g, 1), moments(moments_view(count, mean, m2)), index(dense(i)) {
    const GradientsView& v = gradients.view;
    check_vector(index, v.rows, ScalarType::Long, "index");
    if (s) {
      scale_tensor = dense(*s);
      check_vector(*scale_tensor, v.rows, ScalarType::Float, "scale");
      scale = static_cast<const float*>(scale_tensor->const_data_ptr());
    }
    if (pixels) {
      subset_tensor = dense(*pixels);
      check_vector(*subset_tensor, moments.pixels, ScalarType::Long, "pixels");
      subset = indices(*subset_tensor);
    }
    STD_TORCH_CHECK(pixels || moments.pixels == v.pixels, "mean and m2: expected ", v.pixels, " pixels");
    skipped = skipped_counts(counters);
  }
};

struct MergeMomentsArguments {
  MomentsView state, other;

  MergeMomentsArguments(const Tensor& count, const Tensor& mean, const Tensor& m2, const Tensor& other_count,
                        const Tensor& other_mean, const Tensor& other_m2)
      : state(moments_view(count, mean, m2)), other(moments_view(other_count, other_mean, other_m2)) {
    STD_TORCH_CHECK(state.examples == other.examples && state.pixels == other.pixels,
                    "expected two states of one shape");
  }
};

struct VarianceArguments {
  Gradients gradients;
  int64_t checkpoints, checkpoint_stride;
  bool root;

  VarianceArguments(const Tensor& g, const std::string& statistic)
      : gradients(g, 2),
        checkpoints(g.size(0)),
        checkpoint_stride(gradients.tensor.stride(0)),
        root(take_root(statistic)) {}
  Tensor new_output() const {
    return torch::stable::new_empty(gradients.tensor, {gradients.view.rows}, ScalarType::Float);
  }
};

}  // namespace dp
