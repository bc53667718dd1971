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

struct RecordGradientsArguments {
  Gradients gradients;
  Tensor index, scale_tensor;
  int32_t* count;
  float *mean, *m2;
  int64_t examples;
  const float* scale;
  int64_t* skipped;

  RecordGradientsArguments(const Tensor& count_t, const Tensor& mean_t, const Tensor& m2_t, const Tensor& i,
                           const Tensor& g, const std::optional<Tensor>& s, const Tensor& counters)
      : gradients(g, 1), index(dense(i)), scale_tensor(s ? dense(*s) : index) {
    const GradientsView& v = gradients.view;
    check_vector(index, v.rows, ScalarType::Long, "index");
    if (s) check_vector(scale_tensor, v.rows, ScalarType::Float, "scale");
    scale = s ? static_cast<const float*>(scale_tensor.const_data_ptr()) : nullptr;
    STD_TORCH_CHECK(count_t.dim() == 1, "count: expected [examples]");
    examples = count_t.size(0);
    for (const Tensor* t : {&mean_t, &m2_t}) {
      STD_TORCH_CHECK(t->dim() == 2 && t->size(0) == examples && t->size(1) == v.pixels,
                      "mean and m2: expected [examples, pixels] = [", examples, ", ", v.pixels, "]");
    }
    count = state<int32_t>(count_t, ScalarType::Int, "count");
    mean = state<float>(mean_t, ScalarType::Float, "mean");
    m2 = state<float>(m2_t, ScalarType::Float, "m2");
    skipped = skipped_counts(counters);
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
