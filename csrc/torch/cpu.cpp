// CPU kernels behind PyTorch's dispatcher; rows are split among PyTorch's threads.
#include <tuple>

#include "../cpu/kernels.h"
#include "operators.h"

namespace dp {
namespace {

// Rows per thread below which a second thread costs more than it saves; a row costs about 64 elements beyond its own.
int64_t grain(int64_t elements_per_row) { return 1 + 32768 / (elements_per_row + 64); }

Tensor softmax_stats(const Tensor& logits, const Tensor& labels, const std::optional<int64_t>& ignore) {
  const StatsArguments a(logits, labels);
  Tensor out = new_stats(a.logits);
  const LogitsView& view = a.logits.view;
  torch::stable::parallel_for(0, view.rows, grain(view.classes), [&](int64_t begin, int64_t end) {
    cpu::softmax_stats(view, indices(a.labels), ignored_label(ignore), floats(out), begin, end);
  });
  return out;
}

Tensor soft_stats(const Tensor& logits, const Tensor& targets, const std::optional<Tensor>& unnormalised) {
  const SoftArguments a(logits, targets, unnormalised);
  Tensor out = new_stats(a.logits);
  const LogitsView& view = a.logits.view;
  torch::stable::parallel_for(0, view.rows, grain(2 * view.classes), [&](int64_t begin, int64_t end) {
    cpu::soft_stats(view, a.targets.view, floats(out), a.unnormalised, begin, end);
  });
  return out;
}

Tensor sigmoid_stats(const Tensor& logits, const Tensor& labels, const std::optional<int64_t>& ignore) {
  const SigmoidArguments a(logits, labels, ignore);
  Tensor out = new_stats(a.logits);
  const LogitsView& view = a.logits.view;
  torch::stable::parallel_for(0, view.rows, grain(1), [&](int64_t begin, int64_t end) {
    cpu::sigmoid_stats(view, a.labels, floats(out), begin, end);
  });
  return out;
}

std::tuple<Tensor, Tensor> reduce_rows(const Tensor& stats, int64_t examples, const std::optional<Tensor>& owner,
                                       const std::optional<Tensor>& weight, const std::optional<Tensor>& labels,
                                       const std::optional<Tensor>& skipped) {
  const ReduceArguments a(stats, examples, owner, weight, labels, skipped);
  Tensor out = a.new_output(), out_labels = a.new_labels();
  int64_t* label = static_cast<int64_t*>(out_labels.mutable_data_ptr());
  if (examples == 0) cpu::reduce_rows(a.rows, floats(out), label, a.skipped, 0, 0);  // which counts unknown owners
  const int64_t each = examples > 0 ? a.rows.rows / examples : 0;
  torch::stable::parallel_for(0, examples, grain(each * kStats), [&](int64_t begin, int64_t end) {
    cpu::reduce_rows(a.rows, floats(out), label, a.skipped, begin, end);
  });
  return {out, out_labels};
}

// One more step, which the kernels then write to what they record.
void count_step(const RecordOptions& options, int64_t examples) {
  if (options.steps != nullptr) ++options.steps[examples];
}

void record_stats(const Tensor& table, const Tensor& index, const Tensor& logits, const Tensor& labels,
                  const Tensor& skipped, const std::optional<int64_t>& ignore, double decay,
                  const std::optional<Tensor>& steps) {
  const RecordStatsArguments a(table, index, logits, labels, skipped, ignore, decay, steps);
  count_step(a.options, a.examples);
  const DuplicateChains chains(indices(a.index), a.logits.view.rows);
  torch::stable::parallel_for(0, a.logits.view.rows, grain(a.logits.view.classes), [&](int64_t begin, int64_t end) {
    cpu::record_stats(a.table, a.examples, indices(a.index), a.logits.view, indices(a.labels), a.options, chains,
                      a.skipped, begin, end);
  });
}

void record_given_stats(const Tensor& table, const Tensor& index, const Tensor& stats, const Tensor& labels,
                        int64_t num_classes, const Tensor& skipped, double right_from, double decay,
                        const std::optional<Tensor>& steps) {
  const RecordGivenStatsArguments a(table, index, stats, labels, skipped, right_from, decay, steps);
  count_step(a.options, a.examples);
  const DuplicateChains chains(indices(a.index), a.rows);
  torch::stable::parallel_for(0, a.rows, grain(kStats), [&](int64_t begin, int64_t end) {
    cpu::record_given_stats(a.table, a.examples, indices(a.index), a.data(), indices(a.labels), num_classes, a.options,
                            chains, a.skipped, begin, end);
  });
}

void record_temporal(const Tensor& table, const Tensor& index, const Tensor& logits, const Tensor& labels,
                     int64_t window, double decay, const Tensor& skipped, const std::optional<Tensor>& records,
                     const std::optional<int64_t>& ignore) {
  const RecordTemporalArguments a(table, index, logits, labels, window, decay, skipped, records);
  const DuplicateChains chains(indices(a.index), a.logits.view.rows);
  torch::stable::parallel_for(0, a.logits.view.rows, grain(a.logits.view.classes), [&](int64_t begin, int64_t end) {
    cpu::record_temporal(a.table, indices(a.index), a.logits.view, indices(a.labels), ignored_label(ignore), a.records,
                         chains, a.skipped, begin, end);
  });
}

void record_gradients(const Tensor& count, const Tensor& mean, const Tensor& m2, const Tensor& index,
                      const Tensor& gradients, const std::optional<Tensor>& scale, const std::optional<Tensor>& pixels,
                      const Tensor& skipped) {
  const RecordGradientsArguments a(count, mean, m2, index, gradients, scale, pixels, skipped);
  const GradientsView& g = a.gradients.view;
  const DuplicateChains chains(indices(a.index), g.rows);
  torch::stable::parallel_for(0, g.rows, grain(g.channels * a.moments.pixels), [&](int64_t begin, int64_t end) {
    cpu::record_gradients(a.moments, indices(a.index), g, a.scale, a.subset, chains, a.skipped, begin, end);
  });
}

void merge_moments(const Tensor& count, const Tensor& mean, const Tensor& m2, const Tensor& other_count,
                   const Tensor& other_mean, const Tensor& other_m2) {
  const MergeMomentsArguments a(count, mean, m2, other_count, other_mean, other_m2);
  torch::stable::parallel_for(0, a.state.examples, grain(a.state.pixels),
                              [&](int64_t begin, int64_t end) { cpu::merge_moments(a.state, a.other, begin, end); });
}

Tensor gradient_variance(const Tensor& gradients, const std::string& statistic) {
  const VarianceArguments a(gradients, statistic);
  Tensor out = a.new_output();
  float* result = static_cast<float*>(out.mutable_data_ptr());
  const GradientsView& g = a.gradients.view;
  torch::stable::parallel_for(0, g.rows, grain(a.checkpoints * g.channels * g.pixels), [&](int64_t begin, int64_t end) {
    cpu::gradient_variance(g, a.checkpoints, a.checkpoint_stride, a.root, result, begin, end);
  });
  return out;
}

constexpr auto try_record_stats = &Try<accepts_stats, record_stats>::run;
constexpr auto try_record_temporal = &Try<accepts_temporal, record_temporal>::run;
constexpr auto try_record_gradients = &Try<accepts_gradients, record_gradients>::run;

}  // namespace
}  // namespace dp

STABLE_TORCH_LIBRARY_IMPL(difficulty_prune, CPU, m) {
  m.impl("softmax_stats", TORCH_BOX(&dp::softmax_stats));
  m.impl("soft_stats", TORCH_BOX(&dp::soft_stats));
  m.impl("sigmoid_stats", TORCH_BOX(&dp::sigmoid_stats));
  m.impl("reduce_rows", TORCH_BOX(&dp::reduce_rows));
  m.impl("try_record_gradients_", TORCH_BOX(dp::try_record_gradients));
  m.impl("try_record_stats_", TORCH_BOX(dp::try_record_stats));
  m.impl("try_record_temporal_", TORCH_BOX(dp::try_record_temporal));
  m.impl("record_stats_", TORCH_BOX(&dp::record_stats));
  m.impl("record_given_stats_", TORCH_BOX(&dp::record_given_stats));
  m.impl("record_temporal_", TORCH_BOX(&dp::record_temporal));
  m.impl("record_gradients_", TORCH_BOX(&dp::record_gradients));
  m.impl("merge_moments_", TORCH_BOX(&dp::merge_moments));
  m.impl("gradient_variance", TORCH_BOX(&dp::gradient_variance));
}
