#include "../rotated_rois.h"

#include "platform.h"

namespace perception {
namespace {

// A thread per output number, columns of bins fastest. Bound: the results once, and the pixels under the regions, which
// the cache serves to the bins that share them.
template <typename T, typename C>
__global__ void forward_kernel(
    const T* __restrict__ features,
    const C* __restrict__ rois,
    int64_t batch,
    int64_t channels,
    int64_t height,
    int64_t width,
    int64_t rows,
    int64_t columns,
    C scale,
    int64_t sampling_ratio,
    bool aligned,
    bool clockwise,
    int64_t total,
    T* __restrict__ pooled) {
  PERCEPTION_FOR(item, total) {
    const int64_t column = item % columns, row = item / columns % rows, channel = item / (columns * rows) % channels;
    const RotatedRoi<C> roi(
        rois + item / (columns * rows * channels) * 6, scale, rows, columns, sampling_ratio, aligned, clockwise);
    C sum = 0;
    if (roi.image >= 0 && roi.image < batch) {
      const T* map = features + (roi.image * channels + channel) * height * width;
      Taps<C> taps;
      for (int64_t i = 0; i < roi.down; ++i) {
        for (int64_t j = 0; j < roi.across; ++j) {
          C y, x;
          roi.place(row, column, i, j, y, x);
          if (taps.set(y, x, height, width)) {
            for (int k = 0; k < 4; ++k) {
              sum += taps.weight[k] * C(map[taps.pixel[k]]);
            }
          }
        }
      }
      sum /= C(greatest<int64_t>(roi.down * roi.across, 1));
    }
    pooled[item] = T(sum);
  }
}

template <typename T, typename C>
__global__ void backward_kernel(
    const T* __restrict__ grad,
    const C* __restrict__ rois,
    int64_t batch,
    int64_t channels,
    int64_t height,
    int64_t width,
    int64_t rows,
    int64_t columns,
    C scale,
    int64_t sampling_ratio,
    bool aligned,
    bool clockwise,
    int64_t total,
    C* __restrict__ sums) {
  PERCEPTION_FOR(item, total) {
    const int64_t column = item % columns, row = item / columns % rows, channel = item / (columns * rows) % channels;
    const RotatedRoi<C> roi(
        rois + item / (columns * rows * channels) * 6, scale, rows, columns, sampling_ratio, aligned, clockwise);
    if (roi.image < 0 || roi.image >= batch) {
      continue;
    }
    C* map = sums + (roi.image * channels + channel) * height * width;
    const C pull = C(grad[item]) / C(greatest<int64_t>(roi.down * roi.across, 1));
    Taps<C> taps;
    for (int64_t i = 0; i < roi.down; ++i) {
      for (int64_t j = 0; j < roi.across; ++j) {
        C y, x;
        roi.place(row, column, i, j, y, x);
        if (taps.set(y, x, height, width)) {
          for (int k = 0; k < 4; ++k) {
            atomic_add(map + taps.pixel[k], pull * taps.weight[k]);
          }
        }
      }
    }
  }
}

Tensor roi_align_rotated(
    const Tensor& features,
    const Tensor& rois,
    int64_t rows,
    int64_t columns,
    double spatial_scale,
    int64_t sampling_ratio,
    bool aligned,
    bool clockwise) {
  check_rois(features, rois);
  PERCEPTION_GUARD(features);
  const Tensor maps = features.contiguous(), regions = rois.to(compute_type(features)).contiguous();
  Tensor pooled = at::empty({rois.size(0), features.size(1), rows, columns}, maps.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, maps.scalar_type(), "roi_align_rotated", [&] {
    using compute_t = typename Compute<scalar_t>::type;
    const auto kernel = forward_kernel<scalar_t, compute_t>;
    PERCEPTION_LAUNCH(
        kernel, blocks_for(pooled.numel()), kThreads, 0, maps.const_data_ptr<scalar_t>(),
        regions.const_data_ptr<compute_t>(), maps.size(0), maps.size(1), maps.size(2), maps.size(3), rows, columns,
        compute_t(spatial_scale), sampling_ratio, aligned, clockwise, pooled.numel(),
        pooled.mutable_data_ptr<scalar_t>());
  });
  return pooled;
}

Tensor roi_align_rotated_backward(
    const Tensor& grad,
    const Tensor& rois,
    int64_t batch,
    int64_t height,
    int64_t width,
    double spatial_scale,
    int64_t sampling_ratio,
    bool aligned,
    bool clockwise) {
  check_rois(grad, rois);
  PERCEPTION_GUARD(grad);
  const Tensor grads = grad.contiguous(), regions = rois.to(compute_type(grad)).contiguous();
  Tensor sums = at::zeros({batch, grad.size(1), height, width}, grad.options().dtype(compute_type(grad)));
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grads.scalar_type(), "roi_align_rotated_backward", [&] {
    using compute_t = typename Compute<scalar_t>::type;
    const auto kernel = backward_kernel<scalar_t, compute_t>;
    PERCEPTION_LAUNCH(
        kernel, blocks_for(grads.numel()), kThreads, 0, grads.const_data_ptr<scalar_t>(),
        regions.const_data_ptr<compute_t>(), batch, grad.size(1), height, width, grad.size(2), grad.size(3),
        compute_t(spatial_scale), sampling_ratio, aligned, clockwise, grads.numel(),
        sums.mutable_data_ptr<compute_t>());
  });
  return sums.to(grad.scalar_type());
}

PERCEPTION_CUDA_KERNELS(m) {
  m.impl("roi_align_rotated", roi_align_rotated);
  m.impl("roi_align_rotated_backward", roi_align_rotated_backward);
}

} // namespace
} // namespace perception
