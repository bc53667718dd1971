// The arguments of each operator, checked and turned into views once for both devices.
#pragma once

#include <optional>

#include "tensors.h"

namespace dp {

struct StatsArguments {
  Logits logits;
  Tensor labels;

  StatsArguments(const Tensor& z, const Tensor& y) : logits(z), labels(dense(y)) {
    check_vector(labels, logits.view.rows, ScalarType::Long, "labels");
  }
  Tensor new_output() const {
    return torch::stable::new_empty(logits.tensor, {logits.view.rows, int64_t(kStats)}, ScalarType::Float);
  }
};

struct RecordStatsArguments : StatsArguments {
  Tensor index;
  Record* table;
  int64_t examples;
  int64_t* skipped;

  RecordStatsArguments(const Tensor& t, const Tensor& i, const Tensor& z, const Tensor& y, const Tensor& counters)
      : StatsArguments(z, y), index(dense(i)) {
    check_vector(index, logits.view.rows, ScalarType::Long, "index");
    STD_TORCH_CHECK(t.dim() == 2 && t.size(1) * sizeof(float) == sizeof(Record), "table: expected [examples, 16]");
    table = reinterpret_cast<Record*>(state<float>(t, ScalarType::Float, "table"));
    STD_TORCH_CHECK(reinterpret_cast<uintptr_t>(table) % alignof(Record) == 0,
                    "table: expected data aligned to 64 bytes");
    examples = t.size(0);
    skipped = skipped_counts(counters);
  }
};

// Values on the CPU are looked at; others would have to be waited for.
inline bool inside(const Tensor& values, int64_t limit) {
  if (!values.is_cpu()) return true;
  const int64_t* at = indices(values);
  const int64_t n = values.size(0), stride = values.stride(0);
  bool all = true;  // no early exit, so that the loop vectorises: nearly always all are inside
  for (int64_t i = 0; i < n; ++i) all &= uint64_t(at[i * stride]) < uint64_t(limit);
  return all;
}

// Whether record_stats_ has nothing to complain of. Python, which knows better how to complain, does so where not.
inline bool accepts_stats(const Tensor& table, const Tensor& index, const Tensor& logits, const Tensor& labels,
                          const Tensor& skipped) {
  const auto is = [&](const Tensor& t, int64_t dim, ScalarType type) {
    return t.dim() == dim && t.scalar_type() == type && t.is_cpu() == logits.is_cpu() &&
           t.get_device_index() == logits.get_device_index();
  };
  const ScalarType type = logits.scalar_type();
  return (type == ScalarType::Float || type == ScalarType::BFloat16 || type == ScalarType::Half) &&
         is(logits, 2, type) && is(labels, 1, ScalarType::Long) && is(index, 1, ScalarType::Long) &&
         is(table, 2, ScalarType::Float) && is(skipped, 1, ScalarType::Long) && logits.size(1) > 0 &&
         labels.size(0) == logits.size(0) && index.size(0) == logits.size(0) &&
         table.size(1) * sizeof(float) == sizeof(Record) && table.is_contiguous() &&
         reinterpret_cast<uintptr_t>(table.const_data_ptr()) % alignof(Record) == 0 &&
         skipped.size(0) == kSkippedKinds && skipped.is_contiguous() && inside(index, table.size(0)) &&
         inside(labels, logits.size(1));
}

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
