// Calls launchers with arguments from a file, and writes what they return and leave behind to another file.
//
//   calls ARGUMENTS RESULTS ORDER SHARED_BYTES EVERY     (the last three: see emulator::Device)
//
// ARGUMENTS holds one call after the other: the launcher's number and its arguments, all of them int64. A buffer is
// its size in bytes (-1: a null pointer), its distance from a 64-byte boundary, and its bytes. Each buffer becomes an
// allocation that ends where the buffer ends, so that AddressSanitizer sees an access beyond.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <numeric>
#include <vector>

#include "../../csrc/cuda/launch.h"
#include "cuda_runtime.h"

extern "C" {  // null where traffic.cpp is not linked
[[gnu::weak]] void traffic_watch(const void* memory, size_t bytes);
[[gnu::weak]] void traffic_forget(const void* memory);
[[gnu::weak]] void traffic_call();
}

namespace {

FILE *arguments, *results;

void read(void* to, size_t bytes) {
  if (bytes != 0 && fread(to, bytes, 1, arguments) != 1) std::abort();
}

int64_t number() {
  int64_t value;
  read(&value, sizeof value);
  return value;
}

class Buffer {
 public:
  Buffer() : Buffer{number(), number()} {
    if (size_ > 0) read(memory_.get() + offset_, size_);
  }
  Buffer(int64_t size, int64_t offset) : size_(size), offset_(offset) {
    if (size_ < 0) return;
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, offset_ + size_) != 0) std::abort();
    memory_.reset(static_cast<char*>(memory));
    memset(memory, 0xff, offset_ + size_);
    if (traffic_watch) traffic_watch(memory_.get() + offset_, size_);
  }
  void write() const {
    if (size_ > 0) fwrite(memory_.get() + offset_, 1, size_, results);
  }
  template <class T>
  operator T*() const {
    return size_ < 0 ? nullptr : reinterpret_cast<T*>(memory_.get() + offset_);
  }

 private:
  struct Free {
    void operator()(char* memory) const {
      if (traffic_forget) traffic_forget(memory);
      std::free(memory);
    }
  };
  int64_t size_, offset_;
  std::unique_ptr<char, Free> memory_;
};

struct Sorted {
  Buffer values, order;

  Sorted(const int64_t* of, int64_t rows) : values(8 * rows, 0), order(8 * rows, 0) {
    int64_t *const at = order, *const value = values;
    std::iota(at, at + rows, 0);
    std::stable_sort(at, at + rows, [&](int64_t a, int64_t b) { return of[a] < of[b]; });
    std::transform(at, at + rows, value, [&](int64_t row) { return of[row]; });
  }
};

// How the rows of a batch are chained: as csrc/torch/cuda.cpp does it, with a sort of the standard library.
int chain(const int64_t* index, int64_t rows, int64_t examples, bool sorts, uint32_t* links, int32_t* steps) {
  int32_t* const step = steps ? steps + examples : nullptr;
  if (!sorts) return dp::cuda::chain_few_rows(index, rows, examples, links, step, nullptr);
  const Sorted sorted(index, rows);
  return dp::cuda::chain_sorted_rows(sorted.values, sorted.order, rows, examples, links, step, nullptr);
}

class Links {
 public:
  Links(const int64_t* index, int64_t rows, int64_t examples, int32_t* steps = nullptr) : links_(4 * rows, 0) {
    if (chain(index, rows, examples, rows > dp::cuda::kFewRows, links_, steps) != 0) std::abort();
  }
  operator const uint32_t*() const { return links_; }

 private:
  Buffer links_;
};

void finish(int64_t error, std::initializer_list<const Buffer*> written) {
  fwrite(&error, sizeof error, 1, results);
  for (const Buffer* buffer : written) buffer->write();
}

// Numbers and buffers are members and local variables, because these are read in the order in which they stand here.
struct Logits {
  int64_t type = number(), rows = number(), classes = number(), row_stride = number(), class_stride = number();
  int64_t positions = number(), outer_dims = number();
  int64_t outer_size[2] = {number(), number()}, outer_stride[2] = {number(), number()};
  Buffer data;
  dp::LogitsView view() const {
    dp::LogitsView view = {data,       dp::ElementType(type), rows,      classes,
                           row_stride, class_stride,          positions, int(outer_dims)};
    std::copy_n(outer_size, 2, view.outer_size);
    std::copy_n(outer_stride, 2, view.outer_stride);
    return view;
  }
};

struct Options {
  int64_t ignore = number(), right_percent = number(), decay_percent = number();
  Buffer steps;
  dp::RecordOptions options() const {
    return {ignore, float(right_percent) / 100.0f, float(decay_percent) / 100.0f, steps};
  }
};

struct Gradients {
  int64_t type = number(), rows = number(), channels = number(), pixels = number();
  int64_t row_stride = number(), channel_stride = number(), pixel_stride = number();
  Buffer data;
  dp::GradientsView view() const {
    return {data, dp::ElementType(type), rows, channels, pixels, row_stride, channel_stride, pixel_stride};
  }
};

struct Moments {
  bool narrow = number() != 0;
  int64_t examples = number(), pixels = number();
  Buffer count, mean, m2;
  dp::MomentsView view() const { return {count, mean, m2, narrow, examples, pixels}; }
};

void chain_rows() {
  const int64_t rows = number(), examples = number(), sorts = number();
  const Buffer index, steps, links;
  finish(chain(index, rows, examples, sorts != 0, links, steps), {&links, &steps});
}

void softmax_stats() {
  const Logits logits;
  const Buffer labels;
  const int64_t ignore = number();
  const Buffer out;
  finish(dp::cuda::softmax_stats(logits.view(), labels, ignore, out, nullptr), {&out});
}

void soft_stats() {
  const Logits logits, targets;
  const Buffer out, unnormalised;
  finish(dp::cuda::soft_stats(logits.view(), targets.view(), out, unnormalised, nullptr), {&out, &unnormalised});
}

void sigmoid_stats() {
  const Logits logits;
  const int64_t type = number(), ignore = number();
  const Buffer labels, out;
  const dp::BinaryLabels view = {labels, dp::BinaryType(type), ignore};
  finish(dp::cuda::sigmoid_stats(logits.view(), view, out, nullptr), {&out});
}

void reduce_rows() {
  const int64_t number_of_rows = number(), examples = number();
  const Buffer stats, owner, weight, labels, out, out_labels, skipped;
  const dp::RowsView rows = {stats, number_of_rows, examples, owner, weight, labels};
  const Sorted sorted(owner, rows.owner ? number_of_rows : 0);
  const Buffer scratch(dp::cuda::reduce_scratch(rows), 0);
  const bool owned = rows.owner != nullptr;
  const int64_t* const values = owned ? static_cast<int64_t*>(sorted.values) : nullptr;
  const int64_t* const order = owned ? static_cast<int64_t*>(sorted.order) : nullptr;
  const int error = dp::cuda::reduce_rows(rows, values, order, scratch, out, out_labels, skipped, nullptr);
  finish(error, {&out, &out_labels, &skipped});
}

void record_stats() {
  const Buffer table;
  const int64_t examples = number();
  const Buffer index;
  const Logits logits;
  const Buffer labels;
  const Options given;
  const Buffer skipped;
  const Links links(index, logits.rows, examples, given.steps);
  const int error =
      dp::cuda::record_stats(table, examples, index, links, logits.view(), labels, given.options(), skipped, nullptr);
  finish(error, {&table, &skipped, &given.steps});
}

void record_given_stats() {
  const Buffer table;
  const int64_t examples = number();
  const Buffer index, stats, labels;
  const int64_t rows = number(), classes = number();
  const Options given;
  const Buffer skipped;
  const Links links(index, rows, examples, given.steps);
  const int error = dp::cuda::record_given_stats(table, examples, index, links, stats, labels, rows, classes,
                                                 given.options(), skipped, nullptr);
  finish(error, {&table, &skipped, &given.steps});
}

void record_temporal() {
  const Buffer table;
  const int64_t examples = number(), width = number(), window = number(), decay_percent = number(), changes = number();
  const Buffer index;
  const Logits logits;
  const Buffer labels, records;
  const int64_t ignore = number();
  const Buffer skipped;
  const dp::TemporalView view = {table, examples, width, window, float(decay_percent) / 100.0f, changes != 0};
  const Links links(index, logits.rows, examples);
  const int error =
      dp::cuda::record_temporal(view, index, links, logits.view(), labels, ignore, records, skipped, nullptr);
  finish(error, {&table, &skipped});
}

void record_gradients() {
  const Moments state;
  const Buffer index;
  const Gradients gradients;
  const Buffer scale, subset, skipped;
  const Links links(index, gradients.rows, state.examples);
  const int error =
      dp::cuda::record_gradients(state.view(), index, links, gradients.view(), scale, subset, skipped, nullptr);
  finish(error, {&state.count, &state.mean, &state.m2, &skipped});
}

void merge_moments() {
  const Moments state, other;
  finish(dp::cuda::merge_moments(state.view(), other.view(), nullptr), {&state.count, &state.mean, &state.m2});
}

void gradient_variance() {
  const Gradients gradients;
  const int64_t checkpoints = number(), checkpoint_stride = number(), take_root = number();
  const Buffer out;
  const int error =
      dp::cuda::gradient_variance(gradients.view(), checkpoints, checkpoint_stride, take_root != 0, out, nullptr);
  finish(error, {&out});
}

void (*const kLaunchers[])() = {chain_rows,       softmax_stats, soft_stats,         sigmoid_stats,
                                reduce_rows,      record_stats,  record_given_stats, record_temporal,
                                record_gradients, merge_moments, gradient_variance};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  arguments = fopen(argv[1], "rb");
  results = fopen(argv[2], "wb");
  if (arguments == nullptr || results == nullptr) return 2;
  emulator::device.order = emulator::Order(atoi(argv[3]));
  emulator::device.shared_optin = atoi(argv[4]);
  emulator::device.every = atoi(argv[5]);
  for (int64_t launcher; fread(&launcher, sizeof launcher, 1, arguments) == 1;) {
    if (traffic_call) traffic_call();
    kLaunchers[launcher]();
  }
  return fclose(results);
}
