// Rank statistics on awkward vectors, for the sanitizers; each must agree with a count of smaller and equal values.
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>

#include "../../csrc/host/halves.h"
#include "../../csrc/host/ranks.h"

namespace {

void expect(bool right, const char* what, size_t n) {
  if (right) return;
  fprintf(stderr, "%s of %zu values\n", what, n);
  exit(1);
}

void check_ranks(const std::vector<double>& x) {
  const size_t n = x.size();
  std::vector<double> ranks(n), standard(n), sorted(x);
  dp::host::average_ranks(x.data(), int64_t(n), ranks.data());
  std::sort(sorted.begin(), sorted.end());
  for (size_t i = 0; i < n; ++i) {
    const auto [low, high] = std::equal_range(sorted.begin(), sorted.end(), x[i]);
    const double first = double(low - sorted.begin() + 1), last = double(high - sorted.begin());
    expect(ranks[i] == 0.5 * (first + last), "ranks", n);
  }
  dp::host::standard_ranks(x.data(), int64_t(n), standard.data());
}

void check_halves(std::vector<double> a, std::vector<double> b, int32_t groups) {
  const size_t n = a.size();
  std::vector<int32_t> group(n);
  for (size_t i = 0; i < n; ++i) group[i] = int32_t(i * 7 % size_t(groups));
  std::vector<dp::host::Compared> found(1 + size_t(groups));
  dp::host::compare_halves(a.data(), b.data(), int64_t(n), group.data(), groups, found.data());
  for (int32_t g = -1; g < groups; ++g) {
    std::vector<double> x, y;
    for (size_t i = 0; i < n; ++i) {
      if (g < 0 || group[i] == g) x.push_back(a[i]), y.push_back(b[i]);
    }
    dp::host::Compared alone;
    const std::vector<int32_t> one(x.size());
    std::vector<dp::host::Compared> both(2);
    dp::host::compare_halves(x.data(), y.data(), int64_t(x.size()), one.data(), 1, both.data());
    alone = both[0];
    const dp::host::Compared& among = found[size_t(1 + g)];
    expect(std::isnan(alone.spearman) ? std::isnan(among.spearman) : std::fabs(alone.spearman - among.spearman) < 1e-9,
           "halves", n);
  }
}

}  // namespace

int main() {
  std::mt19937_64 random(0);
  std::normal_distribution<double> normal;
  const double largest = std::numeric_limits<double>::max(), tiny = std::numeric_limits<double>::denorm_min();
  for (size_t n : {0, 1, 2, 31, 2047, 2048, 2049, 20000}) {
    std::vector<double> x(n), y(n);
    for (int kind = 0; kind < 6; ++kind) {
      for (size_t i = 0; i < n; ++i) {
        const double z = normal(random);
        const double kinds[] = {z, std::round(2 * z), 1 + 1e-13 * z, 7.0, i % 3 ? z * 1e-300 : -0.0, i ? z : largest};
        x[i] = kinds[kind];
        y[i] = x[i] + std::round(normal(random));
      }
      if (n > 4 && kind == 4) x[0] = tiny, x[1] = -tiny, x[2] = INFINITY, x[3] = -INFINITY, x[4] = 0.0;
      check_ranks(x);
      if (n > 9 && kind < 4) x[5] = NAN, y[9] = NAN;
      if (kind < 4) check_halves(x, y, 1), check_halves(x, y, 5);
    }
  }
  puts("done");
}
