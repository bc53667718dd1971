// From PyTorch tensors (stable ABI) to the views that kernels take. The checks here are the safety net
// for direct callers of torch.ops; the Python layer gives better messages first.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "../core/record.h"
#include "../core/temporal.h"
#include "../core/views.h"

namespace dp {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline ElementType element_type(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return ElementType::kFloat32;
    case ScalarType::BFloat16:
      return ElementType::kBFloat16;
    case ScalarType::Half:
      return ElementType::kFloat16;
    case ScalarType::Double:
      return ElementType::kFloat64;
    default:
      STD_TORCH_CHECK(false, "expected a floating-point tensor");
  }
}

inline Tensor dense(const Tensor& t) { return t.is_contiguous() ? t : torch::stable::contiguous(t); }

inline void check_vector(const Tensor& t, int64_t length, ScalarType type, const char* name) {
  STD_TORCH_CHECK(t.dim() == 1 && t.size(0) == length && t.scalar_type() == type, name,
                  ": wrong shape or dtype, expected one value per row");
}

// A tensor that a kernel writes in place.
template <class T>
T* state(const Tensor& t, ScalarType type, const char* name) {
  STD_TORCH_CHECK(t.scalar_type() == type && t.is_contiguous(), name,
                  ": expected a contiguous tensor of the right dtype");
  return static_cast<T*>(t.mutable_data_ptr());
}

inline int64_t* skipped_counts(const Tensor& t) {
  STD_TORCH_CHECK(t.numel() == kSkippedKinds, "skipped: expected ", int(kSkippedKinds), " counters");
  return state<int64_t>(t, ScalarType::Long, "skipped");
}

inline const int64_t* indices(const Tensor& t) { return static_cast<const int64_t*>(t.const_data_ptr()); }

// A view and the tensor that it points into, which may be a contiguous copy of the input.
struct Logits {
  Tensor tensor;
  LogitsView view;

  explicit Logits(const Tensor& t) : tensor(t.dim() == 2 && t.stride(1) == 1 ? t : dense(t)) {
    STD_TORCH_CHECK(tensor.dim() == 2, "logits: expected [batch, classes]");
    STD_TORCH_CHECK(tensor.scalar_type() != ScalarType::Double, "logits: expected float32, bfloat16 or float16");
    view = {tensor.const_data_ptr(), element_type(tensor), tensor.size(0), tensor.size(1), tensor.stride(0)};
  }
};

// gradients [..., B, C, *]: the dimensions from `channel` + 1 on are flattened into pixels, without a copy
// where one stride serves them all (contiguous, channels_last, any expanded or sliced batch).
struct Gradients {
  Tensor tensor;
  GradientsView view;

  Gradients(const Tensor& t, int64_t channel) : tensor(t) {
    STD_TORCH_CHECK(t.dim() > channel, "gradients: too few dimensions");
    int64_t pixels = 0, stride = 0;
    if (!flatten(tensor, channel + 1, pixels, stride)) {
      tensor = torch::stable::contiguous(t);
      flatten(tensor, channel + 1, pixels, stride);
    }
    STD_TORCH_CHECK(tensor.size(channel) > 0 && pixels > 0, "gradients: expected no empty channel or pixel dimension");
    view = {tensor.const_data_ptr(),
            element_type(tensor),
            tensor.size(channel - 1),
            tensor.size(channel),
            pixels,
            tensor.stride(channel - 1),
            tensor.stride(channel),
            stride};
  }

 private:
  static bool flatten(const Tensor& t, int64_t first, int64_t& pixels, int64_t& stride) {
    pixels = 1;
    stride = 1;
    for (int64_t d = t.dim() - 1; d >= first; --d) {
      if (t.size(d) == 1) continue;
      if (pixels == 1) {
        stride = t.stride(d);
      } else if (t.stride(d) != stride * pixels) {
        return false;
      }
      pixels *= t.size(d);
    }
    return true;
  }
};

inline bool take_root(const std::string& statistic) {
  STD_TORCH_CHECK(statistic == "std" || statistic == "variance", "statistic: expected 'std' or 'variance', got '",
                  statistic, "'");
  return statistic == "std";
}

}  // namespace dp
