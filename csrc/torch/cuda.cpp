// CUDA kernels behind PyTorch's dispatcher, on the current stream of the tensor's device.
#include <dlfcn.h>

#include <tuple>

#include "../cuda/launch.h"
#include "operators.h"
#include "sort.h"

namespace dp {
namespace {

// libtorch_cuda is looked up when a CUDA tensor arrives, and not linked, so that this same file also loads
// beside a PyTorch without CUDA.
void* current_stream(int32_t device) {
  using Getter = AOTITorchError (*)(int32_t, void**);
  static const Getter getter = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    void* symbol = library ? dlsym(library, "aoti_torch_get_current_cuda_stream") : nullptr;
    return reinterpret_cast<Getter>(symbol);
  }();
  STD_TORCH_CHECK(getter != nullptr, "this PyTorch has no CUDA: aoti_torch_get_current_cuda_stream was not found");
  void* stream = nullptr;
  STD_TORCH_CHECK(getter(device, &stream) == AOTI_TORCH_SUCCESS, "PyTorch named no current stream of device ", device);
  return stream;
}

// Makes the tensor's device current for one launch, and turns a launch error into an exception.
class Launch {
 public:
  explicit Launch(const Tensor& t) : guard_(t.get_device_index()), stream_(current_stream(t.get_device_index())) {}
  void* stream() const { return stream_; }
  void check(int error) const { STD_TORCH_CHECK(error == 0, "CUDA kernel launch failed: ", cuda::error_string(error)); }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_;
};

// Which rows present the same example. PyTorch sorts long batches: its sort is stable, so the chains are the same every
// time; it takes memory from PyTorch's allocator and does not wait for the device, so a CUDA graph can capture it.
class Chains {
 public:
  // Counts up the step as well, where one is kept.
  Chains(const Tensor& index, int64_t examples, const Launch& launch, int32_t* steps = nullptr)
      : links_(torch::stable::new_empty(index, {index.size(0)}, ScalarType::Int)) {
    const int64_t rows = index.size(0);
    uint32_t* links = static_cast<uint32_t*>(links_.mutable_data_ptr());
    int32_t* step = steps ? steps + examples : nullptr;
    if (rows <= cuda::kFewRows) {
      launch.check(cuda::chain_few_rows(indices(index), rows, examples, links, step, launch.stream()));
    } else {
      const auto [sorted, order] = stable_sort(index);
      launch.check(
          cuda::chain_sorted_rows(indices(sorted), indices(order), rows, examples, links, step, launch.stream()));
    }
  }
  const uint32_t* links() const { return static_cast<const uint32_t*>(links_.const_data_ptr()); }

 private:
  Tensor links_;
};

Tensor softmax_stats(const Tensor& logits, const Tensor& labels, const std::optional<int64_t>& ignore) {
  const Launch launch(logits);
  const StatsArguments a(logits, labels);
  Tensor out = new_stats(a.logits);
  launch.check(
      cuda::softmax_stats(a.logits.view, indices(a.labels), ignored_label(ignore), floats(out), launch.stream()));
  return out;
}

Tensor soft_stats(const Tensor& logits, const Tensor& targets, const std::optional<Tensor>& unnormalised) {
  const Launch launch(logits);
  const SoftArguments a(logits, targets, unnormalised);
  Tensor out = new_stats(a.logits);
  launch.check(cuda::soft_stats(a.logits.view, a.targets.view, floats(out), a.unnormalised, launch.stream()));
  return out;
}

Tensor sigmoid_stats(const Tensor& logits, const Tensor& labels, const std::optional<int64_t>& ignore) {
  const Launch launch(logits);
  const SigmoidArguments a(logits, labels, ignore);
  Tensor out = new_stats(a.logits);
  launch.check(cuda::sigmoid_stats(a.logits.view, a.labels, floats(out), launch.stream()));
  return out;
}

std::tuple<Tensor, Tensor> reduce_rows(const Tensor& stats, int64_t examples, const std::optional<Tensor>& owner,
                                       const std::optional<Tensor>& weight, const std::optional<Tensor>& labels,
                                       const std::optional<Tensor>& skipped) {
  const Launch launch(stats);
  const ReduceArguments a(stats, examples, owner, weight, labels, skipped);
  Tensor out = a.new_output(), out_labels = a.new_labels();
  const Tensor scratch = torch::stable::new_empty(a.stats, {cuda::reduce_scratch(a.rows)}, ScalarType::Byte);
  std::optional<std::pair<Tensor, Tensor>> sorted;
  if (a.owner) sorted = stable_sort(torch::stable::flatten(*a.owner));
  launch.check(cuda::reduce_rows(a.rows, sorted ? indices(sorted->first) : nullptr,
                                 sorted ? indices(sorted->second) : nullptr, scratch.mutable_data_ptr(), floats(out),
                                 static_cast<int64_t*>(out_labels.mutable_data_ptr()), a.skipped, launch.stream()));
  return {out, out_labels};
}

void record_stats(const Tensor& table, const Tensor& index, const Tensor& logits, const Tensor& labels,
                  const Tensor& skipped, const std::optional<int64_t>& ignore, double decay,
                  const std::optional<Tensor>& steps) {
  const Launch launch(logits);
  const RecordStatsArguments a(table, index, logits, labels, skipped, ignore, decay, steps);
  const Chains chains(a.index, a.examples, launch, a.options.steps);
  launch.check(cuda::record_stats(a.table, a.examples, indices(a.index), chains.links(), a.logits.view,
                                  indices(a.labels), a.options, a.skipped, launch.stream()));
}

void record_given_stats(const Tensor& table, const Tensor& index, const Tensor& stats, const Tensor& labels,
                        int64_t num_classes, const Tensor& skipped, double right_from, double decay,
                        const std::optional<Tensor>& steps) {
  const Launch launch(stats);
  const RecordGivenStatsArguments a(table, index, stats, labels, skipped, right_from, decay, steps);
  const Chains chains(a.index, a.examples, launch, a.options.steps);
  launch.check(cuda::record_given_stats(a.table, a.examples, indices(a.index), chains.links(), a.data(),
                                        indices(a.labels), a.rows, num_classes, a.options, a.skipped, launch.stream()));
}

void record_temporal(const Tensor& table, const Tensor& index, const Tensor& logits, const Tensor& labels,
                     int64_t window, double decay, const Tensor& skipped, const std::optional<Tensor>& records,
                     const std::optional<int64_t>& ignore) {
  const Launch launch(logits);
  const RecordTemporalArguments a(table, index, logits, labels, window, decay, skipped, records);
  const Chains chains(a.index, a.table.examples, launch);
  launch.check(cuda::record_temporal(a.table, indices(a.index), chains.links(), a.logits.view, indices(a.labels),
                                     ignored_label(ignore), a.records, a.skipped, launch.stream()));
}

void record_gradients(const Tensor& count, const Tensor& mean, const Tensor& m2, const Tensor& index,
                      const Tensor& gradients, const std::optional<Tensor>& scale, const std::optional<Tensor>& pixels,
                      const Tensor& skipped) {
  const Launch launch(gradients);
  const RecordGradientsArguments a(count, mean, m2, index, gradients, scale, pixels, skipped);
  const Chains chains(a.index, a.moments.examples, launch);
  launch.check(cuda::record_gradients(a.moments, indices(a.index), chains.links(), a.gradients.view, a.scale, a.subset,
                                      a.skipped, launch.stream()));
}

void merge_moments(const Tensor& count, const Tensor& mean, const Tensor& m2, const Tensor& other_count,
                   const Tensor& other_mean, const Tensor& other_m2) {
  const Launch launch(mean);
  const MergeMomentsArguments a(count, mean, m2, other_count, other_mean, other_m2);
  launch.check(cuda::merge_moments(a.state, a.other, launch.stream()));
}

Tensor gradient_variance(const Tensor& gradients, const std::string& statistic) {
  const Launch launch(gradients);
  const VarianceArguments a(gradients, statistic);
  Tensor out = a.new_output();
  launch.check(cuda::gradient_variance(a.gradients.view, a.checkpoints, a.checkpoint_stride, a.root,
                                       static_cast<float*>(out.mutable_data_ptr()), launch.stream()));
  return out;
}

constexpr auto try_record_stats = &Try<accepts_stats, record_stats>::run;
constexpr auto try_record_temporal = &Try<accepts_temporal, record_temporal>::run;
constexpr auto try_record_gradients = &Try<accepts_gradients, record_gradients>::run;

}  // namespace
}  // namespace dp

STABLE_TORCH_LIBRARY_IMPL(difficulty_prune, CUDA, m) {
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
