#include "common.h"

namespace perception {
namespace {

Tensor channels_last(const Tensor& x, at::ScalarType type) {
  return x.to(type).permute({0, 2, 3, 1}).contiguous();
}

Tensor channels_first(const Tensor& x, at::ScalarType type) {
  return x.permute({0, 3, 1, 2}).to(type).contiguous();
}

// Calls visit(tap, y, x) for the pixels of the window around (y, x) that lie in the map.
template <typename Visit>
inline void for_window(const ReassemblyShape& s, int64_t y, int64_t x, const Visit& visit) {
  const int64_t reach = s.kernel / 2;
  for (int64_t i = std::max<int64_t>(0, reach - y); i < std::min(s.kernel, s.height + reach - y); ++i) {
    for (int64_t j = std::max<int64_t>(0, reach - x); j < std::min(s.kernel, s.width + reach - x); ++j) {
      visit(i * s.kernel + j, y + i - reach, x + j - reach);
    }
  }
}

// With channels last, an output pixel is a sum of k * k vectors; a row of output pixels is one task.
Tensor carafe(const Tensor& features, const Tensor& masks, int64_t kernel, int64_t groups, int64_t scale) {
  const ReassemblyShape s = read_reassembly(features, masks, kernel, groups, scale);
  const auto type = compute_type(features);
  const Tensor maps = channels_last(features, type), weights = channels_last(masks, type);
  const int64_t out_height = s.height * scale, out_width = s.width * scale;
  Tensor output = at::zeros({s.batch, out_height, out_width, s.channels}, maps.options());
  AT_DISPATCH_FLOATING_TYPES(type, "carafe", [&] {
    const scalar_t* values = maps.const_data_ptr<scalar_t>();
    const scalar_t* weight = weights.const_data_ptr<scalar_t>();
    scalar_t* out = output.mutable_data_ptr<scalar_t>();
    at::parallel_for(
        0, s.batch * out_height, grain(out_width * s.channels * s.taps()), [&](int64_t begin, int64_t end) {
          for (int64_t row = begin; row < end; ++row) {
            const scalar_t* map = values + row / out_height * s.height * s.width * s.channels;
            for (int64_t column = 0; column < out_width; ++column) {
              const int64_t pixel = row * out_width + column;
              for (int64_t group = 0; group < groups; ++group) {
                const scalar_t* w = weight + (pixel * groups + group) * s.taps();
                scalar_t* sum = out + pixel * s.channels + group * s.per_group();
                for_window(s, row % out_height / scale, column / scale, [&](int64_t tap, int64_t y, int64_t x) {
                  const scalar_t* from = map + (y * s.width + x) * s.channels + group * s.per_group();
                  add_scaled(sum, from, w[tap], s.per_group());
                });
              }
            }
          }
        });
  });
  return channels_first(output, features.scalar_type());
}

// The gradient by the features is gathered: input pixel (y, x) is tap (i, j) of the windows around (y, x) - (i, j) +
// reach. Nothing is added to by two threads, and sums have one order.
std::tuple<Tensor, Tensor> carafe_backward(
    const Tensor& grad,
    const Tensor& features,
    const Tensor& masks,
    int64_t kernel,
    int64_t groups,
    int64_t scale) {
  const ReassemblyShape s = read_reassembly(features, masks, kernel, groups, scale);
  const auto type = compute_type(features);
  const Tensor maps = channels_last(features, type), weights = channels_last(masks, type),
               grads = channels_last(grad, type);
  Tensor grad_maps = at::zeros_like(maps), grad_weights = at::zeros_like(weights);
  const int64_t out_width = s.width * scale;
  AT_DISPATCH_FLOATING_TYPES(type, "carafe_backward", [&] {
    const scalar_t* values = maps.const_data_ptr<scalar_t>();
    const scalar_t* weight = weights.const_data_ptr<scalar_t>();
    const scalar_t* in = grads.const_data_ptr<scalar_t>();
    scalar_t* to_maps = grad_maps.mutable_data_ptr<scalar_t>();
    scalar_t* to_weights = grad_weights.mutable_data_ptr<scalar_t>();
    const int64_t work = 2 * s.width * s.channels * s.taps() * scale * scale;
    at::parallel_for(0, s.batch * s.height, grain(work), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t image = row / s.height, y = row % s.height;
        const scalar_t* map = values + image * s.height * s.width * s.channels;
        for (int64_t x = 0; x < s.width; ++x) {
          for (int64_t group = 0; group < groups; ++group) {
            const int64_t offset = group * s.per_group();
            scalar_t* sum = to_maps + (row * s.width + x) * s.channels + offset;
            for_window(s, y, x, [&](int64_t tap, int64_t other_y, int64_t other_x) {
              const scalar_t* from = map + (other_y * s.width + other_x) * s.channels + offset;
              for (int64_t place = 0; place < scale * scale; ++place) {
                const int64_t down = place / scale, right = place % scale;
                // As the centre of a window: the other pixel is its tap.
                const int64_t here = ((image * s.height + y) * scale + down) * out_width + x * scale + right;
                to_weights[(here * groups + group) * s.taps() + tap] =
                    dot(in + here * s.channels + offset, from, s.per_group());
                // As a tap of the other pixel's window, opposite in the window.
                const int64_t there =
                    ((image * s.height + other_y) * scale + down) * out_width + other_x * scale + right;
                const scalar_t w = weight[(there * groups + group) * s.taps() + (s.taps() - 1 - tap)];
                add_scaled(sum, in + there * s.channels + offset, w, s.per_group());
              }
            });
          }
        }
      }
    });
  });
  return {channels_first(grad_maps, features.scalar_type()), channels_first(grad_weights, masks.scalar_type())};
}

PERCEPTION_CPU_KERNELS(m) {
  m.impl("carafe", carafe);
  m.impl("carafe_backward", carafe_backward);
}

} // namespace
} // namespace perception
