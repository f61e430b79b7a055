// Soft non-maximum suppression, and groups of suppressed boxes: what both kinds of kernels compute for a pair of boxes.
#pragma once

#include <ATen/core/Tensor.h>

#include "checks.h"
#include "platform.h"

namespace perception {

enum class SoftNms : int64_t { naive, linear, gaussian }; // the order of METHODS in perception/ops/soft_nms.py

inline void check_scored_boxes(const Tensor& boxes, const Tensor& scores) {
  TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4, "boxes must have the shape (N, 4), got ", boxes.sizes());
  TORCH_CHECK(
      scores.dim() == 1 && scores.size(0) == boxes.size(0), "scores must have the shape (", boxes.size(0), ",), got ",
      scores.sizes());
  check_devices(boxes, {scores});
}

template <typename T>
struct UprightBox {
  T x1, y1, x2, y2, area;
};

// Not a number where a coordinate is not, because the area is not, or where neither box has an area.
template <typename T>
PERCEPTION_HD T upright_iou(const UprightBox<T>& a, const UprightBox<T>& b, T offset) {
  const T width = greatest(T(0), least(a.x2, b.x2) - greatest(a.x1, b.x1) + offset);
  const T height = greatest(T(0), least(a.y2, b.y2) - greatest(a.y1, b.y1) + offset);
  const T overlap = width * height;
  return overlap / (a.area + b.area - overlap);
}

template <typename T, SoftNms method>
PERCEPTION_HD T lowered(T score, T iou, T threshold, T sigma) {
  if constexpr (method == SoftNms::naive) {
    return iou >= threshold ? T(0) : score;
  } else if constexpr (method == SoftNms::linear) {
    return iou >= threshold ? score * (1 - iou) : score;
  } else {
    return iou == 0 ? score : score * std::exp(-(iou * iou) / sigma);
  }
}

} // namespace perception
