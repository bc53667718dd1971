// Examples that occur more than once in a batch, chained in batch order, so that one thread handles
// all presentations of an example one after the other.
#pragma once

#include <cstdint>
#include <vector>

namespace dp {

class DuplicateChains {
 public:
  static constexpr int64_t kEnd = -1;

  DuplicateChains(const int64_t* index, int64_t rows) : next_(rows, kEnd), head_(rows, false) {
    size_t capacity = 16;
    while (capacity < size_t(rows) * 2) capacity *= 2;
    std::vector<int64_t> last(capacity, kEnd);  // open addressing: slot -> latest row of its example
    for (int64_t row = 0; row < rows; ++row) {
      size_t slot = hash(index[row]) & (capacity - 1);
      while (last[slot] != kEnd && index[last[slot]] != index[row]) slot = (slot + 1) & (capacity - 1);
      if (last[slot] == kEnd) {
        head_[row] = true;
      } else {
        next_[last[slot]] = row;
      }
      last[slot] = row;
    }
  }

  bool is_head(int64_t row) const { return head_[row]; }
  int64_t next(int64_t row) const { return next_[row]; }

 private:
  static size_t hash(int64_t x) { return size_t(uint64_t(x) * 0x9e3779b97f4a7c15ull >> 32); }

  std::vector<int64_t> next_;
  std::vector<char> head_;
};

}  // namespace dp
