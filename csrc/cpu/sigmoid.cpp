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

Label label_at(const BinaryLabels& labels, int64_t row) {
  const auto at = [&](auto type) { return static_cast<const decltype(type)*>(labels.data)[row]; };
  switch (labels.type) {
    case BinaryType::kBool:
      return label_of(int64_t(at(uint8_t()) != 0), labels.ignore);
    case BinaryType::kUInt8:
      return label_of(int64_t(at(uint8_t())), labels.ignore);
    case BinaryType::kInt32:
      return label_of(int64_t(at(int32_t())), labels.ignore);
    case BinaryType::kInt64:
      return label_of(at(int64_t()), labels.ignore);
    case BinaryType::kFloat32:
      return label_of(double(at(float())), labels.ignore);
    case BinaryType::kFloat64:
      return label_of(at(double()), labels.ignore);
    case BinaryType::kBFloat16:
      return label_of(to_double(at(BFloat16())), labels.ignore);
    case BinaryType::kFloat16:
      return label_of(to_double(at(Float16())), labels.ignore);
  }
  return kBad;
}

template <int kLanes>
DP_INLINE void binary_group(const float* z, const int32_t* labels, float* results) {
  using F = typename Vectors<kLanes>::Floats;
  for (int l = 0; l < kGroup; l += kLanes) {
    IntsOf<F> label;
    memcpy(&label, labels + l, sizeof label);
    auto stats = binary_stats<LaneMath<F>>(load<F>(z + l), label == int32_t(kOne));
    spread_fault(stats);
    store_rows(stats, results + l * kStats);
  }
}

DP_VERSIONS(void finish(const float* z, const int32_t* labels, float* results), binary_group, (z, labels, results))

template <class T>
void binary_rows(const T* data, const LogitsView& logits, const BinaryLabels& labels, float* out, int64_t begin,
                 int64_t end) {
  RowOffsets offsets(logits);
  for (int64_t start = begin; start < end; start += kGroup) {
    float z[kGroup] = {};
    int32_t label[kGroup] = {};
    const int size = int(std::min<int64_t>(kGroup, end - start));
    for (int l = 0; l < size; ++l) {
      label[l] = label_at(labels, start + l);
      z[l] = to_float(data[offsets.at(start + l)]);
    }
    float results[kGroup * kStats];
    finish(z, label, results);
    for (int l = 0; l < size; ++l) {
      float* stats = out + (start + l) * kStats;
      if (label[l] == kIgnored) {
        store_no_row(stats);
      } else if (label[l] == kBad) {
        std::fill_n(stats, int(kStats), std::nanf(""));
      } else {
        std::copy_n(results + l * kStats, int(kStats), stats);
      }
    }
  }
}

}  // namespace

void sigmoid_stats(const LogitsView& logits, const BinaryLabels& labels, float* out, int64_t begin, int64_t end) {
  visit_logits(logits, [&](auto* data) { binary_rows(data, logits, labels, out, begin, end); });
}

}  // namespace dp::cpu
