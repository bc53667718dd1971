// Ranks with ties averaged, and the Spearman matrix of several score vectors. No Python, no torch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <thread>
#include <vector>

#include "order.h"

namespace dp::host {

// Average ranks, 1-based, as scipy.stats.rankdata gives them. `x` has no NaN.
inline void average_ranks(const double* x, int64_t n, double* ranks) {
  Sorted sorted;
  int64_t before = 0;
  sorted.for_each_tie(x, n, [&](const int64_t* positions, int64_t count) {
    const double rank = double(before) + 0.5 * double(count + 1);
    for (int64_t i = 0; i < count; ++i) ranks[positions[i]] = rank;
    before += count;
  });
}

// Ranks [n] with mean 0 and variance 1, or all 0 if all values are equal; the mean of rank x value. `x` has no NaN.
inline double standard_ranks(const double* x, int64_t n, double* ranks) {
  average_ranks(x, n, ranks);
  const double middle = 0.5 * double(n + 1);
  double square = 0, sum = 0;
  for (int64_t i = 0; i < n; ++i) ranks[i] -= middle, square += ranks[i] * ranks[i], sum += x[i];
  const double scale = square > 0 ? 1.0 / std::sqrt(square / double(n)) : 0.0, mean = sum / double(n);
  double together = 0;
  for (int64_t i = 0; i < n; ++i) ranks[i] *= scale, together += ranks[i] * (x[i] - mean);
  return together / double(n);
}

constexpr int64_t kWorthAThread = 1 << 14;  // steps: a thread takes some 50 us to start and end

// Runs f(0) .. f(count - 1) of so many steps each, spread over the machine's cores.
template <class F>
void for_each_in_parallel(int64_t count, int64_t steps, F&& f) {
  const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
  const int64_t threads = std::min({count, cores, std::max<int64_t>(1, count * steps / kWorthAThread)});
  std::vector<std::thread> others;
  auto work = [&](int64_t first) {
    for (int64_t i = first; i < count; i += threads) f(i);
  };
  for (int64_t t = 1; t < threads; ++t) others.emplace_back(work, t);
  if (count > 0) work(0);
  for (std::thread& t : others) t.join();
}

// x [rows, n] -> matrix [rows, rows]; NaN in the row and column of a constant vector.
inline void spearman_matrix(const double* x, int64_t rows, int64_t n, double* matrix) {
  std::vector<double> ranks(rows * n);
  for_each_in_parallel(rows, 16 * n, [&](int64_t r) {
    double* rank = ranks.data() + r * n;
    average_ranks(x + r * n, n, rank);
    const double mean = 0.5 * double(n + 1);
    double square = 0;
    for (int64_t i = 0; i < n; ++i) rank[i] -= mean, square += rank[i] * rank[i];
    const double scale = square > 0 ? 1.0 / std::sqrt(square) : NAN;
    for (int64_t i = 0; i < n; ++i) rank[i] *= scale;
  });
  for_each_in_parallel(rows, rows * n / 2, [&](int64_t a) {
    for (int64_t b = 0; b <= a; ++b) {
      const double* u = ranks.data() + a * n;
      const double* v = ranks.data() + b * n;
      double lanes[8] = {};
      int64_t i = 0;
      for (; i + 8 <= n; i += 8) {
        for (int l = 0; l < 8; ++l) lanes[l] += u[i + l] * v[i + l];
      }
      double dot = std::accumulate(lanes, lanes + 8, 0.0);
      for (; i < n; ++i) dot += u[i] * v[i];
      const double rho = std::isnan(dot) ? dot : std::clamp(dot, -1.0, 1.0);
      matrix[a * rows + b] = matrix[b * rows + a] = a == b && !std::isnan(dot) ? 1.0 : rho;
    }
  });
}

}  // namespace dp::host
