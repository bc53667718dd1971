// How well two halves of the runs rank alike, over all examples and within groups of them. No Python, no torch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "order.h"

namespace dp::host {

// Of two vectors over a set of examples: Spearman's correlation, and 2 a b / (a^2 + b^2) of their spreads a and b, by
// Gini's mean difference, which is less than 1 if one of them is spread wider. NaN where they rank nothing.
struct Compared {
  double spearman = NAN, alike = NAN;
};

// Twice the ranks of an example, which are whole numbers, among all and within its group.
struct TwiceRanks {
  uint32_t of_all, in_group;
};

// x [n] without NaN, group [n]: within a group examples are in the order that they have among all.
inline void rank_twice(Sorted& sorted, const double* x, const std::vector<int32_t>& group, int32_t groups,
                       std::vector<TwiceRanks>& ranks) {
  ranks.resize(group.size());
  std::vector<uint32_t> before(groups), tied(groups);
  uint32_t before_all = 0;
  sorted.for_each_tie(x, int64_t(group.size()), [&](const int64_t* positions, uint32_t count) {
    if (count == 1) {
      ranks[*positions] = {2 * before_all++ + 2, 2 * before[group[*positions]]++ + 2};
      return;
    }
    for (uint32_t i = 0; i < count; ++i) ++tied[group[positions[i]]];
    for (uint32_t i = 0; i < count; ++i) {
      const int32_t g = group[positions[i]];
      ranks[positions[i]] = {2 * before_all + count + 1, 2 * before[g] + tied[g] + 1};
    }
    for (uint32_t i = 0; i < count; ++i) {
      const int32_t g = group[positions[i]];
      before[g] += tied[g], tied[g] = 0;
    }
    before_all += count;
  });
}

// Sums over the examples of a set, of ranks and values less their means.
struct SumsOfTwo {
  double size = 0, mean_a = 0, mean_b = 0;
  double rank_a2 = 0, rank_b2 = 0, rank_ab = 0, rank_value_a = 0, rank_value_b = 0;

  void add(uint32_t twice_a, uint32_t twice_b, double a, double b) {
    const double rank_a = 0.5 * (double(twice_a) - (size + 1)), rank_b = 0.5 * (double(twice_b) - (size + 1));
    rank_a2 += rank_a * rank_a, rank_b2 += rank_b * rank_b, rank_ab += rank_a * rank_b;
    rank_value_a += rank_a * (a - mean_a), rank_value_b += rank_b * (b - mean_b);
  }

  Compared compare() const {
    if (size < 2 || rank_a2 == 0 || rank_b2 == 0) return {};
    const double norm_a = std::sqrt(rank_a2), norm_b = std::sqrt(rank_b2);
    const double spread_a = rank_value_a / norm_a, spread_b = rank_value_b / norm_b;
    return {std::min(1.0, std::max(-1.0, rank_ab / (norm_a * norm_b))),
            2 * spread_a * spread_b / (spread_a * spread_a + spread_b * spread_b)};
  }
};

// a, b [n], NaN for an example that is left out; group [n] -> found [1 + groups], over all examples first.
inline void compare_halves(const double* a, const double* b, int64_t n, const int32_t* group, int32_t groups,
                           Compared* found) {
  std::vector<double> x, y;
  std::vector<int32_t> group_of;
  x.reserve(n), y.reserve(n), group_of.reserve(n);
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isnan(a[i]) && !std::isnan(b[i])) x.push_back(a[i]), y.push_back(b[i]), group_of.push_back(group[i]);
  }
  Sorted sorted;
  std::vector<TwiceRanks> of_x, of_y;
  rank_twice(sorted, x.data(), group_of, groups, of_x);
  rank_twice(sorted, y.data(), group_of, groups, of_y);

  SumsOfTwo all;
  std::vector<SumsOfTwo> in_group(groups);
  for (size_t i = 0; i < x.size(); ++i) {
    for (SumsOfTwo* sums : {&all, &in_group[group_of[i]]}) ++sums->size, sums->mean_a += x[i], sums->mean_b += y[i];
  }
  const auto finish_means = [](SumsOfTwo& sums) { sums.mean_a /= sums.size, sums.mean_b /= sums.size; };
  finish_means(all);
  for (SumsOfTwo& sums : in_group) finish_means(sums);
  for (size_t i = 0; i < x.size(); ++i) {
    all.add(of_x[i].of_all, of_y[i].of_all, x[i], y[i]);
    in_group[group_of[i]].add(of_x[i].in_group, of_y[i].in_group, x[i], y[i]);
  }
  found[0] = all.compare();
  for (int32_t g = 0; g < groups; ++g) found[1 + g] = in_group[g].compare();
}

}  // namespace dp::host
