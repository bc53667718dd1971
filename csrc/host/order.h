// Positions of values in ascending order, by a radix sort of their leading bits. No Python, no torch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace dp::host {

constexpr int kPositionBits = 32, kDigitBits = 11, kDigits = 3;     // 3 x 11 bits cover the 32 that lead
constexpr int64_t kMost = (int64_t(1) << (kPositionBits - 1)) - 1;  // values: twice a rank fits into 32 bits
constexpr int64_t kWorthARadixSort = 1 << 11;  // below, clearing the counts takes longer than a sort

// A number as whole numbers in the same order; 0 and -0 are the same, NaN has no place.
inline uint64_t in_order(double x) {
  x += 0.0;  // -0 becomes 0
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits >> 63 ? ~bits : bits | uint64_t(1) << 63;
}

inline int bit_width(uint64_t x) {
  int width = 0;
  for (; x; x >>= 1) ++width;
  return width;
}

// What sorting takes, kept from one vector to the next.
struct Sorted {
  std::vector<uint64_t> items, spare;
  std::vector<int64_t> positions;  // of the values of one set of equal ones

  // Calls visit(positions, count) for each set of equal values of x [n], without NaN, in ascending order; n at most
  // kMost.
  template <class F>
  void for_each_tie(const double* x, int64_t n, F&& visit) {
    const int shift = sort_leading_bits(x, n);
    for (int64_t start = 0, end; start < n; start = end) {
      const uint64_t leading = items[start] >> kPositionBits;
      for (end = start + 1; end < n && items[end] >> kPositionBits == leading;) ++end;
      if (end == start + 1) {  // as nearly all are
        const int64_t position = uint32_t(items[start]);
        visit(&position, 1);
        continue;
      }
      positions.resize(end - start);
      for (int64_t i = start; i < end; ++i) positions[i - start] = uint32_t(items[i]);
      if (shift == 0) {
        visit(positions.data(), end - start);
        continue;
      }
      std::sort(positions.begin(), positions.end(), [x](int64_t a, int64_t b) { return x[a] < x[b]; });
      for (int64_t first = 0, last; first < end - start; first = last) {
        for (last = first + 1; last < end - start && x[positions[last]] == x[positions[first]];) ++last;
        visit(positions.data() + first, last - first);
      }
    }
  }

 private:
  // items [n] in ascending order: the leading bits of a value above its position. The number of bits that are left out.
  int sort_leading_bits(const double* x, int64_t n) {
    items.resize(n), spare.resize(n);
    uint64_t least = ~uint64_t(0), most = 0;
    for (int64_t i = 0; i < n; ++i) {
      const uint64_t key = in_order(x[i]);
      least = std::min(least, key), most = std::max(most, key);
    }
    const int shift = n == 0 ? 0 : std::max(0, bit_width(most - least) - (64 - kPositionBits));
    for (int64_t i = 0; i < n; ++i) items[i] = (in_order(x[i]) - least) >> shift << kPositionBits | uint64_t(i);
    if (n < kWorthARadixSort) {
      std::sort(items.begin(), items.end());
    } else {
      radix_sort();
    }
    return shift;
  }

  void radix_sort() {
    constexpr int kValues = 1 << kDigitBits;
    std::vector<uint32_t> counts(kDigits * kValues);
    const auto digit = [](uint64_t item, int d) { return item >> (kPositionBits + d * kDigitBits) & (kValues - 1); };
    for (const uint64_t item : items) {
      for (int d = 0; d < kDigits; ++d) ++counts[d * kValues + digit(item, d)];
    }
    for (int d = 0; d < kDigits; ++d) {
      uint32_t* next = counts.data() + d * kValues;
      if (next[digit(items[0], d)] == items.size()) continue;  // all have the same digit
      for (uint32_t v = 0, sum = 0; v < kValues; ++v) sum += std::exchange(next[v], sum);
      for (const uint64_t item : items) spare[next[digit(item, d)]++] = item;
      items.swap(spare);
    }
  }
};

}  // namespace dp::host
