// Tensors that are dense in one memory layout are updated as flat arrays, without a copy.
#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>

namespace perception {

inline bool same_layout(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type()) {
    return false;
  }
  for (int64_t axis = 0; axis < a.dim() && a.numel() > 0; ++axis) { // strides of nothing mean nothing
    if (a.size(axis) > 1 && a.stride(axis) != b.stride(axis)) {
      return false;
    }
  }
  return true;
}

inline void check_layout(const at::Tensor& parameter, std::initializer_list<at::Tensor> others) {
  TORCH_CHECK(parameter.is_non_overlapping_and_dense(), "the parameter must be dense in memory");
  for (const at::Tensor& other : others) {
    TORCH_CHECK(
        same_layout(parameter, other) && parameter.device() == other.device(),
        "parameter, gradient and state must have one shape, type, device and memory layout");
  }
}

} // namespace perception
