// The permutation test of group means. No Python, no torch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../cpu/simd.h"
#include "ranks.h"

namespace dp::host {

// The runs are cut into nibbles of four. Of each nibble all 16 sums of some of its scores are tabulated, so that the
// sum of a group takes one addition per nibble and not one per run.
constexpr int kNibble = 4, kSums = 1 << kNibble;
constexpr int kExamples = 16;  // at a time: the table of 40 runs is 20 kB
using Doubles = double __attribute__((vector_size(32)));
constexpr int kVectors = kExamples / 4;
using Lanes = double[kExamples];
struct Sums {
  Lanes of[kSums];
};

DP_INLINE Doubles load(const double* at) {
  Doubles x;
  memcpy(&x, at, sizeof x);
  return x;
}

struct Assignments {
  int64_t count, nibbles;
  std::vector<double> inverse_size;  // of each group
  std::vector<uint8_t> members;      // [count, groups - 1, nibbles]: bit i, whether the i-th run of the nibble is in

  int64_t groups() const { return int64_t(inverse_size.size()); }
};

// groups [count, runs]: the group of each run, the same number of runs of each group in every row.
inline Assignments pack(const int16_t* groups, int64_t count, int64_t runs) {
  std::vector<double> sizes(1 + *std::max_element(groups, groups + runs));
  for (int64_t r = 0; r < runs; ++r) ++sizes[groups[r]];
  Assignments packed{count, (runs + kNibble - 1) / kNibble, sizes, {}};
  for (double& size : packed.inverse_size) size = 1 / size;
  const int64_t described = packed.groups() - 1;  // the last group's sum is what is missing to 0
  packed.members.resize(count * described * packed.nibbles);
  for (int64_t a = 0; a < count; ++a) {
    for (int64_t r = 0; r < runs; ++r) {
      const int64_t g = groups[a * runs + r];
      if (g < described) packed.members[(a * described + g) * packed.nibbles + r / kNibble] |= 1 << r % kNibble;
    }
  }
  return packed;
}

// How many assignments have a sum of squares between groups, sum of S_g^2 / n_g, of at least the threshold.
// table [nibbles]: sums of scores of kExamples examples, whose sum over all runs is 0.
DP_CLONES inline void count_block(const Assignments& assignments, const Sums* table, const Lanes& threshold,
                                  Lanes& found) {
  const int64_t last = assignments.groups() - 1, nibbles = assignments.nibbles;
  const double* inverse_size = assignments.inverse_size.data();
  const uint8_t* member = assignments.members.data();
  Doubles count[kVectors] = {};
  for (int64_t a = 0; a < assignments.count; ++a) {
    Doubles between[kVectors] = {}, rest[kVectors] = {};
    for (int64_t g = 0; g < last; ++g, member += nibbles) {
      Doubles sum[kVectors] = {};
      for (int64_t k = 0; k < nibbles; ++k) {
        const double* part = table[k].of[member[k]];
        for (int v = 0; v < kVectors; ++v) sum[v] += load(part + 4 * v);
      }
      for (int v = 0; v < kVectors; ++v) between[v] += sum[v] * sum[v] * inverse_size[g];
      for (int v = 0; v < kVectors; ++v) rest[v] += sum[v];
    }
    for (int v = 0; v < kVectors; ++v) {
      between[v] += rest[v] * rest[v] * inverse_size[last];
      count[v] += between[v] >= load(threshold + 4 * v) ? Doubles{} + 1.0 : Doubles{};
    }
  }
  memcpy(found, count, sizeof count);
}

// scores [runs, n] with mean 0 in each column, threshold [n] -> found [n].
inline void count_as_large(const double* scores, int64_t runs, int64_t n, const double* threshold,
                           const Assignments& assignments, int64_t* found) {
  for_each_in_parallel((n + kExamples - 1) / kExamples, assignments.count * assignments.nibbles, [&](int64_t block) {
    const int64_t first = block * kExamples, width = std::min<int64_t>(kExamples, n - first);
    std::vector<Sums> table(assignments.nibbles);
    for (int64_t r = 0; r < runs; ++r) {
      Sums& nibble = table[r / kNibble];
      for (int sum = 0; sum < kSums; ++sum) {
        if (!(sum >> r % kNibble & 1)) continue;
        for (int64_t l = 0; l < width; ++l) nibble.of[sum][l] += scores[r * n + first + l];
      }
    }
    Lanes least = {}, count;
    std::copy_n(threshold + first, width, least);
    count_block(assignments, table.data(), least, count);
    std::copy_n(count, width, found + first);
  });
}

}  // namespace dp::host
