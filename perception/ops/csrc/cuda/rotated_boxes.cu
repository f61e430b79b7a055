#include "../rotated_boxes.h"

#include "platform.h"

namespace perception {
namespace {

constexpr int kWord = 64; // boxes per word of the suppression mask

// All pairs. Bound: 8 N M bytes written (the result is computed in double and cast afterwards); the boxes stay in cache.
template <typename T>
__global__ void all_pairs_kernel(
    const T* __restrict__ boxes1,
    const T* __restrict__ boxes2,
    int64_t rows,
    int64_t columns,
    bool iof,
    bool clockwise,
    T* __restrict__ out) {
  PERCEPTION_FOR(pair, rows * columns) {
    const T* a = boxes1 + pair / columns * 5;
    const T* b = boxes2 + pair % columns * 5;
    // Circles around the boxes decide most pairs without a sine.
    const double dx = double(a[0]) - double(b[0]), dy = double(a[1]) - double(b[1]);
    const double reach = 0.5 * (sqrt(double(a[2]) * a[2] + double(a[3]) * a[3]) +
                                sqrt(double(b[2]) * b[2] + double(b[3]) * b[3]));
    T overlap = 0;
    if (dx * dx + dy * dy <= reach * reach * (1 + 1e-12)) {
      overlap = T(rotated_overlap(read_box(a, clockwise), read_box(b, clockwise), iof));
    }
    out[pair] = overlap;
  }
}

template <typename T>
__global__ void aligned_kernel(
    const T* __restrict__ boxes1, const T* __restrict__ boxes2, int64_t count, bool iof, bool clockwise, T* out) {
  PERCEPTION_FOR(i, count) {
    out[i] = T(rotated_overlap(read_box(boxes1 + 5 * i, clockwise), read_box(boxes2 + 5 * i, clockwise), iof));
  }
}

Tensor box_iou_rotated(const Tensor& boxes1, const Tensor& boxes2, bool iof, bool aligned, bool clockwise) {
  check_boxes(boxes1);
  check_boxes(boxes2);
  check_devices(boxes1, {boxes2});
  PERCEPTION_GUARD(boxes1);
  const Tensor first = boxes1.contiguous(), second = boxes2.to(boxes1.scalar_type()).contiguous();
  const int64_t rows = first.size(0), columns = second.size(0);
  TORCH_CHECK(!aligned || rows == columns, "aligned sets must have equal sizes, got ", rows, " and ", columns);
  Tensor out = aligned ? at::empty({rows}, first.options()) : at::empty({rows, columns}, first.options());
  AT_DISPATCH_FLOATING_TYPES(first.scalar_type(), "box_iou_rotated", [&] {
    const scalar_t* a = first.const_data_ptr<scalar_t>();
    const scalar_t* b = second.const_data_ptr<scalar_t>();
    scalar_t* result = out.mutable_data_ptr<scalar_t>();
    if (aligned) {
      PERCEPTION_LAUNCH(aligned_kernel<scalar_t>, blocks_for(rows), kThreads, 0, a, b, rows, iof, clockwise, result);
    } else {
      PERCEPTION_LAUNCH(
          all_pairs_kernel<scalar_t>, blocks_for(rows * columns), kThreads, 0, a, b, rows, columns, iof, clockwise,
          result);
    }
  });
  return out;
}

// Word (i, w): which of the boxes 64 w ... 64 w + 63, later in rank than i, box i would remove. 64 threads, one per i.
template <typename T>
__global__ void suppression_kernel(
    const T* __restrict__ boxes,
    const int64_t* __restrict__ order,
    const double* __restrict__ labels,
    int64_t count,
    int64_t words,
    double threshold,
    bool clockwise,
    uint64_t* __restrict__ mask) {
  PERCEPTION_FOR(item, count * words) {
    const int64_t i = item / words, first = item % words * kWord;
    uint64_t bits = 0;
    if (first + kWord > i + 1) {
      const RotatedBox box = read_box(boxes + order[i] * 5, clockwise);
      for (int64_t j = first > i ? first : i + 1; j < first + kWord && j < count; ++j) {
        if (labels != nullptr && labels[i] != labels[j]) {
          continue;
        }
        const RotatedBox other = read_box(boxes + order[j] * 5, clockwise);
        if (may_overlap(box, other) && double(T(rotated_overlap(box, other, false))) > threshold) {
          bits |= uint64_t(1) << (j - first);
        }
      }
    }
    mask[item] = bits;
  }
}

// One block walks down the ranks; its threads hold the words of the boxes removed so far.
__global__ void greedy_kernel(const uint64_t* __restrict__ mask, int64_t count, int64_t words, bool* __restrict__ keep) {
  PERCEPTION_SHARED(uint64_t, removed);
  for (int64_t w = threadIdx.x; w < words; w += blockDim.x) {
    removed[w] = 0;
  }
  __syncthreads();
  for (int64_t i = 0; i < count; ++i) {
    const bool stays = !(removed[i / kWord] >> (i % kWord) & 1);
    __syncthreads();
    if (threadIdx.x == 0) {
      keep[i] = stays;
    }
    if (stays) {
      for (int64_t w = i / kWord + threadIdx.x; w < words; w += blockDim.x) {
        removed[w] |= mask[i * words + w];
      }
    }
    __syncthreads();
  }
}

Tensor nms_rotated(
    const Tensor& boxes,
    const Tensor& order,
    const std::optional<Tensor>& labels,
    double iou_threshold,
    bool clockwise) {
  check_ranks(boxes, order, labels);
  PERCEPTION_GUARD(boxes);
  const int64_t count = boxes.size(0), words = ceil_div(count, kWord);
  TORCH_CHECK(words * sizeof(uint64_t) <= 48 * 1024, "nms_rotated takes at most 393216 boxes at once, got ", count);
  const Tensor numbers = boxes.contiguous(), ranks = order.to(at::kLong).contiguous();
  const Tensor classes =
      labels.has_value() ? labels->index_select(0, ranks).to(at::kDouble).contiguous() : Tensor();
  const double* label = labels.has_value() ? classes.const_data_ptr<double>() : nullptr;
  Tensor mask = at::empty({count, words}, boxes.options().dtype(at::kLong));
  Tensor keep = at::zeros({count}, boxes.options().dtype(at::kBool));
  uint64_t* bits = reinterpret_cast<uint64_t*>(mask.mutable_data_ptr<int64_t>());
  AT_DISPATCH_FLOATING_TYPES(boxes.scalar_type(), "nms_rotated", [&] {
    PERCEPTION_LAUNCH(
        suppression_kernel<scalar_t>, blocks_for(count * words, 64), 64, 0, numbers.const_data_ptr<scalar_t>(),
        ranks.const_data_ptr<int64_t>(), label, count, words, iou_threshold, clockwise, bits);
  });
  if (count > 0) {
    PERCEPTION_LAUNCH_TOGETHER(
        greedy_kernel, 1, 64, words * sizeof(uint64_t), bits, count, words, keep.mutable_data_ptr<bool>());
  }
  return ranks.index({keep});
}

PERCEPTION_CUDA_KERNELS(m) {
  m.impl("box_iou_rotated", box_iou_rotated);
  m.impl("nms_rotated", nms_rotated);
}

} // namespace
} // namespace perception
