#include "../deform_attn.h"

#include "common.h"

namespace perception {
namespace {

Tensor ms_deform_attn(
    const Tensor& value,
    at::IntArrayRef spatial_shapes,
    const Tensor& sampling_locations,
    const Tensor& attention_weights) {
  const auto type = compute_type(value);
  const Tensor values = as_type(value, type), locations = as_type(sampling_locations, type),
               weights = as_type(attention_weights, type);
  const AttentionLevels levels = read_levels(value, spatial_shapes, sampling_locations, attention_weights);
  const int64_t batch = value.size(0), length = value.size(1), heads = value.size(2), dim = value.size(3);
  const int64_t queries = locations.size(1), points = locations.size(4), num_levels = levels.count;
  Tensor output = at::zeros({batch, queries, heads * dim}, values.options());
  AT_DISPATCH_FLOATING_TYPES(type, "ms_deform_attn", [&] {
    const scalar_t* v = values.const_data_ptr<scalar_t>();
    const scalar_t* place = locations.const_data_ptr<scalar_t>();
    const scalar_t* weight = weights.const_data_ptr<scalar_t>();
    scalar_t* out = output.mutable_data_ptr<scalar_t>();
    const int64_t work = num_levels * points * (4 * dim + 16);
    at::parallel_for(0, batch * queries * heads, grain(work), [&](int64_t begin, int64_t end) {
      Corners<scalar_t> corners;
      for (int64_t item = begin; item < end; ++item) { // (batch, query, head)
        const scalar_t* from = v + (item / (queries * heads) * length * heads + item % heads) * dim;
        for (int64_t level = 0; level < num_levels; ++level) {
          const int64_t height = levels.height[level], width = levels.width[level], start = levels.start[level];
          for (int64_t point = 0; point < points; ++point) {
            const int64_t sample = (item * num_levels + level) * points + point;
            const scalar_t x = place[2 * sample] * width - scalar_t(0.5);
            const scalar_t y = place[2 * sample + 1] * height - scalar_t(0.5);
            if (!corners.set(x, y, height, width)) {
              continue;
            }
            for (int k = 0; k < 4; ++k) {
              if (corners.pixel[k] >= 0) {
                add_scaled(
                    out + item * dim, from + (start + corners.pixel[k]) * heads * dim,
                    corners.weight[k] * weight[sample], dim);
              }
            }
          }
        }
      }
    });
  });
  return output.to(value.scalar_type());
}

// A task is one head of one image, whose values no other task touches: no atomics, and one order of summation.
std::tuple<Tensor, Tensor, Tensor> ms_deform_attn_backward(
    const Tensor& grad,
    const Tensor& value,
    at::IntArrayRef spatial_shapes,
    const Tensor& sampling_locations,
    const Tensor& attention_weights) {
  const auto type = compute_type(value);
  const Tensor grads = as_type(grad, type), values = as_type(value, type),
               locations = as_type(sampling_locations, type), weights = as_type(attention_weights, type);
  const AttentionLevels levels = read_levels(value, spatial_shapes, sampling_locations, attention_weights);
  const int64_t batch = value.size(0), length = value.size(1), heads = value.size(2), dim = value.size(3);
  const int64_t queries = locations.size(1), points = locations.size(4), num_levels = levels.count;
  Tensor grad_value = at::zeros_like(values), grad_locations = at::zeros_like(locations),
         grad_weights = at::zeros_like(weights);
  AT_DISPATCH_FLOATING_TYPES(type, "ms_deform_attn_backward", [&] {
    const scalar_t* g = grads.const_data_ptr<scalar_t>();
    const scalar_t* v = values.const_data_ptr<scalar_t>();
    const scalar_t* place = locations.const_data_ptr<scalar_t>();
    const scalar_t* weight = weights.const_data_ptr<scalar_t>();
    scalar_t* to_value = grad_value.mutable_data_ptr<scalar_t>();
    scalar_t* to_place = grad_locations.mutable_data_ptr<scalar_t>();
    scalar_t* to_weight = grad_weights.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, batch * heads, 1, [&](int64_t begin, int64_t end) {
      Corners<scalar_t> corners;
      for (int64_t task = begin; task < end; ++task) {
        const int64_t image = task / heads, head = task % heads;
        const int64_t base = (image * length * heads + head) * dim;
        for (int64_t query = 0; query < queries; ++query) {
          const int64_t item = (image * queries + query) * heads + head;
          const scalar_t* pull = g + item * dim;
          for (int64_t level = 0; level < num_levels; ++level) {
            const int64_t height = levels.height[level], width = levels.width[level], start = levels.start[level];
            for (int64_t point = 0; point < points; ++point) {
              const int64_t sample = (item * num_levels + level) * points + point;
              const scalar_t x = place[2 * sample] * width - scalar_t(0.5);
              const scalar_t y = place[2 * sample + 1] * height - scalar_t(0.5);
              if (!corners.set(x, y, height, width)) {
                continue;
              }
              scalar_t match[4] = {0, 0, 0, 0}; // <gradient, value of the corner>
              for (int k = 0; k < 4; ++k) {
                if (corners.pixel[k] < 0) {
                  continue;
                }
                const int64_t row = base + (start + corners.pixel[k]) * heads * dim;
                match[k] = dot(pull, v + row, dim);
                add_scaled(to_value + row, pull, corners.weight[k] * weight[sample], dim);
              }
              scalar_t sum = 0;
              for (int k = 0; k < 4; ++k) {
                sum += corners.weight[k] * match[k];
              }
              to_weight[sample] = sum;
              const scalar_t fx = corners.fx, fy = corners.fy;
              to_place[2 * sample] = weight[sample] * scalar_t(width) *
                  ((1 - fy) * (match[1] - match[0]) + fy * (match[3] - match[2]));
              to_place[2 * sample + 1] = weight[sample] * scalar_t(height) *
                  ((1 - fx) * (match[2] - match[0]) + fx * (match[3] - match[1]));
            }
          }
        }
      }
    });
  });
  return {
      grad_value.to(value.scalar_type()),
      grad_locations.to(sampling_locations.scalar_type()),
      grad_weights.to(attention_weights.scalar_type())};
}

PERCEPTION_CPU_KERNELS(m) {
  m.impl("ms_deform_attn", ms_deform_attn);
  m.impl("ms_deform_attn_backward", ms_deform_attn_backward);
}

} // namespace
} // namespace perception
