#include "../rotated_boxes.h"

#include "common.h"

namespace perception {
namespace {

std::vector<RotatedBox> read_boxes(const Tensor& boxes, bool clockwise) {
  check_boxes(boxes);
  const Tensor numbers = as_type(boxes, at::kDouble);
  const double* data = numbers.const_data_ptr<double>();
  std::vector<RotatedBox> result(boxes.size(0));
  for (size_t i = 0; i < result.size(); ++i) {
    result[i] = read_box(data + 5 * i, clockwise);
  }
  return result;
}

Tensor box_iou_rotated(const Tensor& boxes1, const Tensor& boxes2, bool iof, bool aligned, bool clockwise) {
  check_devices(boxes1, {boxes2});
  const auto first = read_boxes(boxes1, clockwise), second = read_boxes(boxes2, clockwise);
  const int64_t rows = first.size(), columns = second.size();
  if (aligned) {
    TORCH_CHECK(rows == columns, "aligned sets must have equal sizes, got ", rows, " and ", columns);
  }
  const auto options = boxes1.options().dtype(at::kDouble);
  Tensor overlap = aligned ? at::zeros({rows}, options) : at::zeros({rows, columns}, options);
  double* out = overlap.mutable_data_ptr<double>();
  at::parallel_for(0, rows, grain(aligned ? 200 : 2 * columns), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (aligned) {
        out[i] = rotated_overlap(first[i], second[i], iof);
        continue;
      }
      for (int64_t j = 0; j < columns; ++j) {
        if (may_overlap(first[i], second[j])) {
          out[i * columns + j] = rotated_overlap(first[i], second[j], iof);
        }
      }
    }
  });
  return overlap.to(boxes1.scalar_type());
}

// `order`: indices by falling score. The IoU is rounded to the type of the boxes before it is compared.
Tensor nms_rotated(
    const Tensor& boxes,
    const Tensor& order,
    const std::optional<Tensor>& labels,
    double iou_threshold,
    bool clockwise) {
  check_ranks(boxes, order, labels);
  const int64_t count = boxes.size(0);
  const Tensor ranks = as_type(order, at::kLong);
  const bool has_labels = labels.has_value();
  const Tensor ranked_labels = has_labels ? labels->index_select(0, ranks).to(at::kDouble).contiguous() : Tensor();
  const double* label = has_labels ? ranked_labels.const_data_ptr<double>() : nullptr;
  const auto ranked = read_boxes(boxes.index_select(0, ranks), clockwise);
  const bool single = boxes.scalar_type() == at::kFloat;

  std::vector<char> removed(count, 0);
  std::vector<int64_t> kept;
  for (int64_t i = 0; i < count; ++i) {
    if (removed[i]) {
      continue;
    }
    kept.push_back(ranks.const_data_ptr<int64_t>()[i]);
    at::parallel_for(i + 1, count, grain(4), [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) {
        if (removed[j] || !may_overlap(ranked[i], ranked[j]) || (has_labels && label[i] != label[j])) {
          continue;
        }
        const double overlap = rotated_overlap(ranked[i], ranked[j], false);
        removed[j] = (single ? double(float(overlap)) : overlap) > iou_threshold;
      }
    });
  }
  Tensor result = at::empty({int64_t(kept.size())}, boxes.options().dtype(at::kLong));
  std::copy(kept.begin(), kept.end(), result.mutable_data_ptr<int64_t>());
  return result;
}

PERCEPTION_CPU_KERNELS(m) {
  m.impl("box_iou_rotated", box_iou_rotated);
  m.impl("nms_rotated", nms_rotated);
}

} // namespace
} // namespace perception
