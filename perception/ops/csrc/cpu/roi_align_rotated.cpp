#include "../rotated_rois.h"

#include "common.h"

namespace perception {
namespace {

template <typename T>
std::vector<RotatedRoi<T>> read_rois(
    const Tensor& rois,
    int64_t batch,
    double scale,
    int64_t rows,
    int64_t columns,
    int64_t sampling_ratio,
    bool aligned,
    bool clockwise) {
  const Tensor numbers = as_type(rois, c10::CppTypeToScalarType<T>::value);
  std::vector<RotatedRoi<T>> result;
  result.reserve(rois.size(0));
  for (int64_t r = 0; r < rois.size(0); ++r) {
    result.emplace_back(
        numbers.const_data_ptr<T>() + 6 * r, T(scale), rows, columns, sampling_ratio, aligned, clockwise);
    TORCH_CHECK(
        result.back().image >= 0 && result.back().image < batch,
        "region ", r, " names image ", result.back().image, " of a batch of ", batch);
  }
  return result;
}

template <typename T>
void add_taps(T* __restrict__ sum, const T* const* tap, const T* weight, int64_t count) {
  const T *a = tap[0], *b = tap[1], *c = tap[2], *d = tap[3];
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    sum[i] += weight[0] * a[i] + weight[1] * b[i] + weight[2] * c[i] + weight[3] * d[i];
  }
}

// Maps and results lie channels last: the numbers of a pixel form one vector.
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
  const int64_t batch = features.size(0), channels = features.size(1), height = features.size(2),
                width = features.size(3), bins = rows * columns;
  const Tensor maps = features.to(compute_type(features)).permute({0, 2, 3, 1}).contiguous();
  Tensor pooled = at::zeros({rois.size(0), rows, columns, channels}, maps.options());
  AT_DISPATCH_FLOATING_TYPES(maps.scalar_type(), "roi_align_rotated", [&] {
    const auto regions =
        read_rois<scalar_t>(rois, batch, spatial_scale, rows, columns, sampling_ratio, aligned, clockwise);
    const scalar_t* values = maps.const_data_ptr<scalar_t>();
    scalar_t* out = pooled.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, int64_t(regions.size()) * bins, grain(16 * channels), [&](int64_t begin, int64_t end) {
      Taps<scalar_t> taps;
      for (int64_t bin = begin; bin < end; ++bin) {
        const auto& roi = regions[bin / bins];
        const int64_t row = bin % bins / columns, column = bin % columns;
        const scalar_t* map = values + roi.image * height * width * channels;
        const scalar_t share = scalar_t(1) / std::max<scalar_t>(1, scalar_t(roi.down * roi.across));
        for (int64_t i = 0; i < roi.down; ++i) {
          for (int64_t j = 0; j < roi.across; ++j) {
            scalar_t y, x;
            roi.place(row, column, i, j, y, x);
            if (!taps.set(y, x, height, width)) {
              continue;
            }
            const scalar_t* tap[4];
            scalar_t weight[4];
            for (int k = 0; k < 4; ++k) {
              tap[k] = map + taps.pixel[k] * channels;
              weight[k] = taps.weight[k] * share;
            }
            add_taps(out + bin * channels, tap, weight, channels);
          }
        }
      }
    });
  });
  return pooled.permute({0, 3, 1, 2}).to(features.scalar_type()).contiguous();
}

// Threads own slices of the channels, so that nothing is added to by two of them and sums have one order.
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
  const int64_t channels = grad.size(1), rows = grad.size(2), columns = grad.size(3), bins = rows * columns;
  const Tensor grads = grad.to(compute_type(grad)).permute({0, 2, 3, 1}).contiguous();
  Tensor sums = at::zeros({batch, height, width, channels}, grads.options());
  constexpr int64_t kSlice = 16;
  AT_DISPATCH_FLOATING_TYPES(grads.scalar_type(), "roi_align_rotated_backward", [&] {
    const auto regions =
        read_rois<scalar_t>(rois, batch, spatial_scale, rows, columns, sampling_ratio, aligned, clockwise);
    const scalar_t* in = grads.const_data_ptr<scalar_t>();
    scalar_t* out = sums.mutable_data_ptr<scalar_t>();
    const int64_t slices = (channels + kSlice - 1) / kSlice;
    at::parallel_for(0, slices, grain(int64_t(regions.size()) * bins * kSlice), [&](int64_t begin, int64_t end) {
      const int64_t first = begin * kSlice, number = std::min(end * kSlice, channels) - first;
      Taps<scalar_t> taps;
      for (int64_t bin = 0; bin < int64_t(regions.size()) * bins; ++bin) {
        const auto& roi = regions[bin / bins];
        const int64_t row = bin % bins / columns, column = bin % columns;
        scalar_t* map = out + roi.image * height * width * channels + first;
        const scalar_t share = scalar_t(1) / std::max<scalar_t>(1, scalar_t(roi.down * roi.across));
        for (int64_t i = 0; i < roi.down; ++i) {
          for (int64_t j = 0; j < roi.across; ++j) {
            scalar_t y, x;
            roi.place(row, column, i, j, y, x);
            if (!taps.set(y, x, height, width)) {
              continue;
            }
            for (int k = 0; k < 4; ++k) {
              add_scaled(
                  map + taps.pixel[k] * channels, in + bin * channels + first, taps.weight[k] * share, number);
            }
          }
        }
      }
    });
  });
  return sums.permute({0, 3, 1, 2}).to(grad.scalar_type()).contiguous();
}

PERCEPTION_CPU_KERNELS(m) {
  m.impl("roi_align_rotated", roi_align_rotated);
  m.impl("roi_align_rotated_backward", roi_align_rotated_backward);
}

} // namespace
} // namespace perception
