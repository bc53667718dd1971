// From PyTorch tensors (stable ABI) to the views that kernels take. The checks here are the safety net
// for direct callers of torch.ops; the Python layer gives better messages first.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

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

  // [B, C], of which kernels read adjacent classes.
  static Logits plain(const Tensor& t) {
    STD_TORCH_CHECK(t.dim() == 2, "logits: expected [batch, classes]");
    return Logits(t.stride(1) == 1 ? t : dense(t), 1);
  }
  // [B, C, d1, ...]: each position is a row, read where it is. Six dimensions that no stride joins are not.
  static Logits of_classes(const Tensor& t) {
    STD_TORCH_CHECK(t.dim() >= 2, "logits: expected [batch, classes, ...]");
    return Logits(t, 1);
  }
  // Every element is a row, of one logit.
  static Logits of_elements(const Tensor& t) { return Logits(t, t.dim()); }

  // The shape of the rows, and `last` after it.
  std::vector<int64_t> rows_and(int64_t last) const {
    std::vector<int64_t> shape;
    for (int64_t d = 0; d < tensor.dim(); ++d) {
      if (d != class_dim_) shape.push_back(tensor.size(d));
    }
    shape.push_back(last);
    return shape;
  }

 private:
  int64_t class_dim_;

  Logits(const Tensor& t, int64_t class_dim) : tensor(t), class_dim_(class_dim) {
    if (!lay_out()) {
      tensor = torch::stable::contiguous(t);
      lay_out();
    }
  }

  bool lay_out() {
    const bool classes = class_dim_ < tensor.dim();
    view = {tensor.const_data_ptr(), element_type(tensor), 1, classes ? tensor.size(class_dim_) : 1, 0};
    view.class_stride = classes ? tensor.stride(class_dim_) : 1;
    view.positions = 1;
    for (int64_t d = tensor.dim() - 1; d >= 0; --d) {
      const int64_t size = tensor.size(d), stride = tensor.stride(d);
      if (d == class_dim_) continue;
      view.rows *= size;
      if (size == 1) continue;
      if (view.positions == 1 && view.outer_dims == 0) {
        view.positions = size, view.row_stride = stride;
      } else if (view.outer_dims == 0 && stride == view.row_stride * view.positions) {
        view.positions *= size;
      } else if (view.outer_dims > 0 && stride == last_stride() * last_size()) {
        last_size() *= size;
      } else if (view.outer_dims == LogitsView::kOuterDims) {
        return false;
      } else {
        ++view.outer_dims;
        last_size() = size, last_stride() = stride;
      }
    }
    return true;
  }
  int64_t& last_size() { return view.outer_size[view.outer_dims - 1]; }
  int64_t& last_stride() { return view.outer_stride[view.outer_dims - 1]; }
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
