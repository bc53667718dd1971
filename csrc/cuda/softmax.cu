#include <cmath>
#include <type_traits>

#include "chains.cuh"
#include "launch.h"
#include "rows.cuh"

namespace dp::cuda {
namespace {

// logits [B, C] of adjacent classes, labels [B] -> out [B, kStats]
template <int kWidth, class Reader, class T>
__global__ void __launch_bounds__(Reader::kMaxThreads, Reader::kMinBlocks)
    softmax_stats_kernel(const T* data, LogitsView logits, const int64_t* labels, int64_t ignore, float* out) {
  const int64_t row = Reader::row();
  if (row >= logits.rows) return;
  const int64_t label = labels[row];
  SoftmaxStats r;
  if (is_ignored(label, ignore)) {
    r = no_row();
  } else if (is_class(label, logits)) {
    r = known(Reader::stats(data + logits.offset(row), logits.classes, label), true);
  } else {
    r = known(r, false);
  }
  if (Reader::speaks()) store_stats(out + row * kStats, r);
}

// Classes lie apart, or are few: a thread reads kRows rows, which then lie side by side, as do those of its neighbours.
template <int kRows, class T>
__global__ void __launch_bounds__(kBlock, kRows == 1 ? 8 : 4)
    strided_stats_kernel(const T* data, LogitsView logits, const int64_t* labels, int64_t ignore, float* out) {
  const int64_t row = (int64_t(blockIdx.x) * kBlock + threadIdx.x) * kRows;
  if (row >= logits.rows) return;
  const auto label = load<kRows>(labels + row);
  int own[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) own[r] = is_class(label.lane[r], logits) ? int(label.lane[r]) : -1;
  ThreadRows<kRows, T> rows;
  rows.read(data + logits.offset(row), logits.class_stride, int(logits.classes), own);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const SoftmaxStats stats = known(rows.finish(r, logits.classes == 1), own[r] >= 0);
    store_stats(out + (row + r) * kStats, is_ignored(label.lane[r], ignore) ? no_row() : stats);
  }
}

// Few classes, and rows that follow each other without a gap, so that one of them is no multiple of 16 bytes, but all
// of a block's are: these come to shared memory first. There rows lie an odd number of elements apart, and so in
// different banks.
template <int kWidth, class T>
__global__ void __launch_bounds__(kBlock, 8)
    packed_stats_kernel(const T* data, LogitsView logits, const int64_t* labels, int64_t ignore, float* out) {
  __shared__ T tile[kBlock * (kNarrow + 1)];
  const int classes = int(logits.classes), stride = classes | 1;
  const int64_t first = int64_t(blockIdx.x) * kBlock, left = logits.rows - first;
  const int rows = left < kBlock ? int(left) : kBlock, elements = rows * classes;
  const T* const z = data + first * classes;
  for (int e = int(threadIdx.x) * kWidth; e < elements; e += kBlock * kWidth) {
    Pack<T, kWidth> pack;
    if (e + kWidth <= elements) {
      pack = load<kWidth>(z + e);
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if (e + j < elements) pack.lane[j] = z[e + j];
      }
    }
    const int row = e / classes;
    int c = e - row * classes, at = row * stride + c;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      if (e + j < elements) tile[at] = pack.lane[j];
      const bool ends = ++c == classes;
      at += ends ? 1 + stride - classes : 1;
      c = ends ? 0 : c;
    }
  }
  __syncthreads();
  const int row = int(threadIdx.x);
  if (row >= rows) return;
  const int64_t label = labels[first + row];
  const int own = is_class(label, logits) ? int(label) : -1;
  ThreadRows<1, T> stats;
  stats.read(tile + row * stride, 1, classes, &own);
  const SoftmaxStats r = known(stats.finish(0, classes == 1), own >= 0);
  store_stats(out + (first + row) * kStats, is_ignored(label, ignore) ? no_row() : r);
}

// table [N] of records, index [B], labels [B]. The thread that speaks for the row `head` does all the writing. `source`
// knows the rows: whether one counts, once it is read, and its statistics.
template <class Source>
__device__ __forceinline__ void record_rows(Record* table, int64_t examples, const int64_t* index,
                                            const uint32_t* links, const int64_t* labels, int64_t classes,
                                            const RecordOptions& options, int64_t* skipped, int64_t head, bool speaks,
                                            Source source) {
  constexpr int kFloats = sizeof(Record) / sizeof(float);
  const int64_t example = index[head];
  if (example < 0 || example >= examples) {
    const bool counts = !is_ignored(labels[head], options.ignore) && source.counts(head, example);
    if (speaks && counts) count_skipped(skipped, kBadIndex);
    return;
  }
  Presentations presentations(links, head);
  if (!presentations.left()) return;
  float* line = reinterpret_cast<float*>(table + example);
  Record record = {};  // that of the thread that speaks is the one that counts
  if (speaks) {
    const auto loaded = load<kFloats>(line);
    memcpy(&record, &loaded, sizeof record);
  }
  bool any = false;
  for (; presentations.left(); presentations.next()) {
    const int64_t row = presentations.row(), label = labels[row];
    if (is_ignored(label, options.ignore) || !source.counts(row, example)) continue;
    if ((label < 0 || label >= classes) && !(Source::kLabelOptional && label == kNoLabel)) {
      if (speaks) count_skipped(skipped, kBadLabel);
      continue;
    }
    const SoftmaxStats r = source.stats(row, label);
    if (speaks) {
      const int fault = fault_of(record, r, label);
      if (fault == kSkippedKinds) {
        update_record(record, r, label, options);
        any = true;
      } else {
        count_skipped(skipped, fault);
      }
    }
  }
  if (any) {
    Pack<float, kFloats> updated;
    memcpy(&updated, &record, sizeof record);
    store(line, updated);
    if (options.steps != nullptr) options.steps[example] = options.steps[examples];
  }
}

template <class Reader, class T>
struct Logits {
  static constexpr bool kLabelOptional = false;
  const T* data;
  const LogitsView& view;

  __device__ __forceinline__ bool counts(int64_t, int64_t) const { return true; }
  __device__ __forceinline__ SoftmaxStats stats(int64_t row, int64_t label) const {
    return Reader::stats(data + row * view.row_stride, view.classes, label);
  }
};

// logits [B, C]
template <int kWidth, class Reader, class T>
__global__ void __launch_bounds__(Reader::kMaxThreads, Reader::kMinRecorders)
    record_stats_kernel(Record* table, int64_t examples, const int64_t* index, const uint32_t* links, const T* data,
                        LogitsView logits, const int64_t* labels, RecordOptions options, int64_t* skipped) {
  const int64_t head = Reader::row();
  if (head >= logits.rows) return;
  record_rows(table, examples, index, links, labels, logits.classes, options, skipped, head, Reader::speaks(),
              Logits<Reader, T>{data, logits});
}

// stats [B, kStats], of which one row is read at a time.
template <int kWidth>
struct GivenStats {
  static constexpr bool kLabelOptional = true;
  const float* all;
  float row[kStats];

  __device__ __forceinline__ bool counts(int64_t r, int64_t example) {
    if (example == kPadding) return false;
#pragma unroll
    for (int s = 0; s < kStats; s += kWidth) {
      const auto pack = load<kWidth>(all + r * kStats + s);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) row[s + j] = pack.lane[j];
    }
    return !is_no_row(row);
  }
  __device__ __forceinline__ SoftmaxStats stats(int64_t, int64_t) const { return given_stats(row); }
};

// A thread a row.
template <int kWidth>
__global__ void __launch_bounds__(kBlock, 4)
    record_given_stats_kernel(Record* table, int64_t examples, const int64_t* index, const uint32_t* links,
                              const float* stats, const int64_t* labels, int64_t rows, int64_t classes,
                              RecordOptions options, int64_t* skipped) {
  const int64_t head = int64_t(blockIdx.x) * kBlock + threadIdx.x;
  if (head >= rows) return;
  record_rows(table, examples, index, links, labels, classes, options, skipped, head, true,
              GivenStats<kWidth>{stats, {}});
}

// Whether kRows rows that follow each other lie side by side in memory, in 16-byte pieces.
template <class T>
bool side_by_side(const LogitsView& logits, const T* data, const int64_t* labels, int kRows) {
  bool fits = logits.row_stride == 1 && logits.positions % kRows == 0 && logits.class_stride * sizeof(T) % 16 == 0;
  for (int d = 0; d < logits.outer_dims; ++d) fits = fits && logits.outer_stride[d] * sizeof(T) % 16 == 0;
  return fits && aligned(data) && aligned(labels);
}

template <int kRows, class T>
void launch_strided(const T* data, const LogitsView& logits, const int64_t* labels, int64_t ignore, float* out,
                    void* stream) {
  constexpr int64_t kEach = int64_t(kBlock) * kRows;
  DP_LAUNCH((strided_stats_kernel<kRows, T>), unsigned((logits.rows + kEach - 1) / kEach), kBlock, 0, stream, data,
            logits, labels, ignore, out);
}

}  // namespace

int softmax_stats(const LogitsView& logits, const int64_t* labels, int64_t ignore, float* out, void* stream) {
  if (!aligned(out) || logits.classes > INT32_MAX) return cudaErrorInvalidValue;
  if (logits.rows == 0) return cudaSuccess;
  visit_logits(logits, [&](auto* data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    if (logits.class_stride == 1 && logits.classes > kNarrow) {
      visit_wide_readers(logits, data, [&](auto reader) {
        using Reader = decltype(reader);
        DP_LAUNCH((softmax_stats_kernel<Reader::kWidth, Reader, T>), Reader::blocks(logits.rows),
                  Reader::threads(logits.classes), 0, stream, data, logits, labels, ignore, out);
      });
    } else if (logits.class_stride == 1 && logits.row_stride == logits.classes && logits.outer_dims == 0 &&
               aligned(data)) {
      DP_LAUNCH((packed_stats_kernel<kPackWidth<T>, T>), unsigned((logits.rows + kBlock - 1) / kBlock), kBlock, 0,
                stream, data, logits, labels, ignore, out);
    } else if (side_by_side(logits, data, labels, kPackWidth<T>)) {
      launch_strided<kPackWidth<T>>(data, logits, labels, ignore, out, stream);
    } else {
      launch_strided<1>(data, logits, labels, ignore, out, stream);
    }
  });
  return cudaGetLastError();
}

int record_stats(Record* table, int64_t examples, const int64_t* index, const uint32_t* links, const LogitsView& logits,
                 const int64_t* labels, const RecordOptions& options, int64_t* skipped, void* stream) {
  if (logits.classes > INT32_MAX) return cudaErrorInvalidValue;
  if (logits.rows == 0) return cudaSuccess;
  visit_logits(logits, [&](auto* data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    const auto launch = [&](auto reader) {
      using Reader = decltype(reader);
      DP_LAUNCH((record_stats_kernel<Reader::kWidth, Reader, T>), Reader::blocks(logits.rows),
                Reader::threads(logits.classes), 0, stream, table, examples, index, links, data, logits, labels,
                options, skipped);
    };
    if (logits.classes <= kNarrow) {
      launch(ByThread<T>());
    } else {
      visit_wide_readers(logits, data, launch);
    }
  });
  return cudaGetLastError();
}

int record_given_stats(Record* table, int64_t examples, const int64_t* index, const uint32_t* links, const float* stats,
                       const int64_t* labels, int64_t rows, int64_t classes, const RecordOptions& options,
                       int64_t* skipped, void* stream) {
  if (rows == 0) return cudaSuccess;
  const auto launch = [&](auto width) {
    DP_LAUNCH((record_given_stats_kernel<decltype(width)::value>), unsigned((rows + kBlock - 1) / kBlock), kBlock, 0,
              stream, table, examples, index, links, stats, labels, rows, classes, options, skipped);
  };
  if (aligned(stats)) {
    launch(std::integral_constant<int, 4>());
  } else {
    launch(std::integral_constant<int, 1>());
  }
  return cudaGetLastError();
}

const char* error_string(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace dp::cuda
