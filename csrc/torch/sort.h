// PyTorch's stable sort, through its dispatcher: the stable ABI has no function of its own for it.
#pragma once

#include <array>
#include <optional>
#include <utility>

#include "tensors.h"

namespace dp {

// Values [n] in ascending order, and where each stood; equal values in the order in which they stood.
inline std::pair<Tensor, Tensor> stable_sort(const Tensor& values) {
  using torch::stable::detail::from, torch::stable::detail::to;
  const int64_t dimension = 0;
  const bool descending = false;
  std::array<StableIValue, 4> stack = {from(values), from(std::optional<bool>(true)), from(dimension),
                                       from(descending)};
  STD_TORCH_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION) == AOTI_TORCH_SUCCESS,
                  "PyTorch could not sort the index");
  return {to<Tensor>(stack[0]), to<Tensor>(stack[1])};
}

}  // namespace dp
