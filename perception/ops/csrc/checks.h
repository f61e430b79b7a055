// What every kernel must know of its inputs before it reads them, on the host and on the device.
#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>

namespace perception {

using at::Tensor;

// Kernels read raw pointers: a tensor of another device would end the process, or spoil its CUDA context.
inline void check_devices(const Tensor& first, std::initializer_list<Tensor> others) {
  for (const Tensor& other : others) {
    TORCH_CHECK(
        !other.defined() || other.device() == first.device(),
        "all tensors must be on one device, got ", first.device(), " and ", other.device());
  }
}

inline void check_clouds(const Tensor& points, const Tensor& centres) {
  for (const Tensor& cloud : {points, centres}) {
    TORCH_CHECK(cloud.dim() == 3 && cloud.size(2) == 3, "clouds must have the shape (B, N, 3), got ", cloud.sizes());
  }
  TORCH_CHECK(
      points.size(0) == centres.size(0), "clouds must have one batch size, got ", points.size(0), " and ",
      centres.size(0));
  check_devices(points, {centres});
}

inline void check_boxes(const Tensor& boxes) {
  TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 5, "boxes must have the shape (N, 5), got ", boxes.sizes());
}

inline void check_ranks(const Tensor& boxes, const Tensor& order, const std::optional<Tensor>& labels) {
  check_boxes(boxes);
  TORCH_CHECK(
      order.dim() == 1 && order.size(0) == boxes.size(0), "scores and order must have the shape (", boxes.size(0),
      ",), got ", order.sizes());
  TORCH_CHECK(
      !labels.has_value() || (labels->dim() == 1 && labels->size(0) == boxes.size(0)), "labels must have the shape (",
      boxes.size(0), ",)");
  check_devices(boxes, {order, labels.value_or(Tensor())});
}

inline void check_rois(const Tensor& maps, const Tensor& rois) {
  TORCH_CHECK(maps.dim() == 4, "features must have the shape (B, C, H, W), got ", maps.sizes());
  TORCH_CHECK(rois.dim() == 2 && rois.size(1) == 6, "rois must have the shape (R, 6), got ", rois.sizes());
  check_devices(maps, {rois});
}

inline void check_attention(const Tensor& value, const Tensor& locations, const Tensor& weights, int64_t levels) {
  TORCH_CHECK(value.dim() == 4, "value must have the shape (B, S, M, D), got ", value.sizes());
  TORCH_CHECK(
      locations.dim() == 6 && locations.size(0) == value.size(0) && locations.size(2) == value.size(2) &&
          locations.size(3) == levels && locations.size(5) == 2,
      "sampling_locations must have the shape (", value.size(0), ", Q, ", value.size(2), ", ", levels, ", P, 2), got ",
      locations.sizes());
  TORCH_CHECK(
      weights.sizes() == locations.sizes().slice(0, 5), "attention_weights must have the shape ",
      locations.sizes().slice(0, 5), ", got ", weights.sizes());
  check_devices(value, {locations, weights});
}

inline void check_positions(const Tensor& table, const Tensor& position) {
  TORCH_CHECK(table.dim() == 2, "values must be a matrix, got ", table.sizes());
  TORCH_CHECK(
      position.dim() == 2 && position.size(1) == 3, "positions must have the shape (M, 3), got ", position.sizes());
  check_devices(table, {position});
}

inline void check_rays(
    const Tensor& start,
    const Tensor& unit,
    const Tensor& count,
    const Tensor& xyz_min,
    const Tensor& xyz_max,
    const std::optional<Tensor>& mask,
    const std::optional<Tensor>& mask_scale,
    const std::optional<Tensor>& mask_shift) {
  TORCH_CHECK(
      start.dim() == 2 && start.size(1) == 3 && unit.sizes() == start.sizes(),
      "starts and directions must have the shape (N, 3), got ", start.sizes(), " and ", unit.sizes());
  TORCH_CHECK(count.dim() == 1 && count.size(0) == start.size(0), "count must have the shape (", start.size(0), ",)");
  TORCH_CHECK(xyz_min.numel() == 3 && xyz_max.numel() == 3, "corners of the box must have three numbers");
  check_devices(start, {unit, count, xyz_min, xyz_max});
  if (mask.has_value()) {
    TORCH_CHECK(mask->dim() == 3, "mask must have the shape (X, Y, Z), got ", mask->sizes());
    TORCH_CHECK(
        mask_scale.has_value() && mask_shift.has_value() && mask_scale->numel() == 3 && mask_shift->numel() == 3,
        "a mask needs mask_scale and mask_shift of three numbers");
    check_devices(start, {*mask, *mask_scale, *mask_shift});
  }
}

} // namespace perception
