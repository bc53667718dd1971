// Rows of two classes, of one logit each.
#include <cmath>

#include "kernels.h"
#include "rows.h"

namespace dp::cpu {
namespace {

enum Label : int32_t { kZero = 0, kOne = 1, kIgnored, kBad };

// A label that is ignored may be 0 or 1, where only the others are known.
Label label_of(int64_t label, int64_t ignore) {
  if (is_ignored(label, ignore)) return kIgnored;
  return label == 1 ? kOne : label == 0 ? kZero : kBad;
}

Label label_of(double label, int64_t ignore) {
  if (std::isnan(label) || (ignore != INT64_MIN && label == double(ignore))) return kIgnored;
  return label == 1.0 ? kOne : label == 0.0 ? kZero : kBad;
}

// Returns whether all are 0 or 1.
template <class T>
bool read_labels(int32_t* out, const T* labels, int64_t ignore, int size) {
  bool all_known = true;
  for (int l = 0; l < size; ++l) {
    if constexpr (std::is_integral_v<T>) {
      out[l] = label_of(int64_t(labels[l]), ignore);
    } else {
      out[l] = label_of(to_double(labels[l]), ignore);
    }
    all_known &= out[l] <= kOne;
  }
  return all_known;
}

template <class T>
void read_logits(float* out, const T* data, RowOffsets& offsets, int64_t stride, int64_t row, int size) {
  const T* first = data + offsets.at(row);
  if (stride == 1 && offsets.run_end(row) >= row + size) {
    for (int l = 0; l < size; ++l) out[l] = to_float(first[l]);
  } else {
    for (int l = 0; l < size; ++l) out[l] = to_float(data[offsets.at(row + l)]);
  }
}

// Calls f with a pointer of the C++ type of the labels.
template <class F>
bool visit_labels(const BinaryLabels& labels, F&& f) {
  switch (labels.type) {
    case BinaryType::kBool:
      return f(static_cast<const bool*>(labels.data));
    case BinaryType::kUInt8:
      return f(static_cast<const uint8_t*>(labels.data));
    case BinaryType::kInt32:
      return f(static_cast<const int32_t*>(labels.data));
    case BinaryType::kInt64:
      return f(static_cast<const int64_t*>(labels.data));
    case BinaryType::kFloat32:
      return f(static_cast<const float*>(labels.data));
    case BinaryType::kFloat64:
      return f(static_cast<const double*>(labels.data));
    case BinaryType::kBFloat16:
      return f(static_cast<const BFloat16*>(labels.data));
    case BinaryType::kFloat16:
      return f(static_cast<const Float16*>(labels.data));
  }
  return false;
}

constexpr int kRows = 128;  // at a time: enough for many steps that do not wait for each other

template <int kLanes>
DP_INLINE void binary_rows(const float* z, const int32_t* labels, int size, float* out) {
  using F = typename Vectors<kLanes>::Floats;
  for (int l = 0; l < size; l += kLanes) {
    auto stats = binary_stats<LaneMath<F>>(load<F>(z + l), load_ints<F>(labels + l) == int32_t(kOne));
    spread_fault(stats);
    store_rows(stats, size - l, out + l * kStats);
  }
}

DP_VERSIONS(void finish(const float* z, const int32_t* labels, int size, float* out), binary_rows,
            (z, labels, size, out))

template <class T>
void stats_rows(const T* data, const LogitsView& logits, const BinaryLabels& labels, float* out, int64_t begin,
                int64_t end) {
  RowOffsets offsets(logits);
  float z[kRows] = {};
  int32_t label[kRows] = {};
  for (int64_t start = begin; start < end; start += kRows) {
    const int size = int(std::min<int64_t>(kRows, end - start));
    const bool all_known =
        visit_labels(labels, [&](auto* at) { return read_labels(label, at + start, labels.ignore, size); });
    read_logits(z, data, offsets, logits.row_stride, start, size);
    finish(z, label, size, out + start * kStats);
    for (int l = 0; !all_known && l < size; ++l) {
      if (label[l] == kIgnored) store_no_row(out + (start + l) * kStats);
      if (label[l] == kBad) std::fill_n(out + (start + l) * kStats, int(kStats), std::nanf(""));
    }
  }
}

}  // namespace

void sigmoid_stats(const LogitsView& logits, const BinaryLabels& labels, float* out, int64_t begin, int64_t end) {
  visit_logits(logits, [&](auto* data) { stats_rows(data, logits, labels, out, begin, end); });
}

}  // namespace dp::cpu
