#include "../deform_attn.h"

#include "platform.h"

namespace perception {
namespace {

// A thread per output number; the threads of a head read whole vectors. Bound: 12 bytes per sample for location and
// weight, the results, and the values that the cache does not hold.
template <typename T, typename C>
__global__ void forward_kernel(
    const T* __restrict__ value,
    const C* __restrict__ locations,
    const C* __restrict__ weights,
    AttentionLevels levels,
    int64_t queries,
    int64_t heads,
    int64_t dim,
    int64_t points,
    int64_t total,
    T* __restrict__ output) {
  PERCEPTION_FOR(index, total) {
    const int64_t item = index / dim; // (batch, query, head)
    const T* from = value + (item / (queries * heads) * levels.length * heads + item % heads) * dim + index % dim;
    C sum = 0;
    Corners<C> corners;
    for (int64_t level = 0; level < levels.count; ++level) {
      const int64_t height = levels.height[level], width = levels.width[level];
      const T* map = from + levels.start[level] * heads * dim;
      for (int64_t point = 0; point < points; ++point) {
        const int64_t sample = (item * levels.count + level) * points + point;
        const C x = locations[2 * sample] * C(width) - C(0.5), y = locations[2 * sample + 1] * C(height) - C(0.5);
        if (!corners.set(x, y, height, width)) {
          continue;
        }
        for (int k = 0; k < 4; ++k) {
          if (corners.pixel[k] >= 0) {
            sum = multiply_add(corners.weight[k] * weights[sample], C(map[corners.pixel[k] * heads * dim]), sum);
          }
        }
      }
    }
    output[index] = T(sum);
  }
}

// A warp per (batch, query, head): its lanes hold the numbers of the vectors, and sum over them for the gradients by
// location and weight, which are written once. Only the gradient by the values needs atomics.
template <typename T, typename C>
__global__ void backward_kernel(
    const T* __restrict__ grad,
    const T* __restrict__ value,
    const C* __restrict__ locations,
    const C* __restrict__ weights,
    AttentionLevels levels,
    int64_t queries,
    int64_t heads,
    int64_t dim,
    int64_t points,
    int64_t items,
    C* __restrict__ to_value,
    C* __restrict__ to_locations,
    C* __restrict__ to_weights) {
  const int lane = threadIdx.x % 32;
  const int64_t warps = int64_t(gridDim.x) * (blockDim.x / 32);
  for (int64_t item = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; item < items; item += warps) {
    const int64_t base = (item / (queries * heads) * levels.length * heads + item % heads) * dim;
    const T* pull = grad + item * dim;
    Corners<C> corners;
    for (int64_t level = 0; level < levels.count; ++level) {
      const int64_t height = levels.height[level], width = levels.width[level];
      for (int64_t point = 0; point < points; ++point) {
        const int64_t sample = (item * levels.count + level) * points + point;
        const C x = locations[2 * sample] * C(width) - C(0.5), y = locations[2 * sample + 1] * C(height) - C(0.5);
        const C weight = weights[sample];
        if (!corners.set(x, y, height, width)) { // all lanes agree
          continue;
        }
        C match[4] = {0, 0, 0, 0}; // <gradient, value of the corner>
        for (int k = 0; k < 4; ++k) {
          if (corners.pixel[k] >= 0) {
            const int64_t row = base + (levels.start[level] + corners.pixel[k]) * heads * dim;
            for (int64_t d = lane; d < dim; d += 32) {
              const C p = C(pull[d]);
              match[k] = multiply_add(p, C(value[row + d]), match[k]);
              atomic_add(to_value + row + d, corners.weight[k] * weight * p);
            }
          }
          match[k] = warp_sum(match[k]);
        }
        if (lane == 0) {
          const C fx = corners.fx, fy = corners.fy;
          to_weights[sample] = corners.weight[0] * match[0] + corners.weight[1] * match[1] +
              corners.weight[2] * match[2] + corners.weight[3] * match[3];
          to_locations[2 * sample] =
              weight * C(width) * ((1 - fy) * (match[1] - match[0]) + fy * (match[3] - match[2]));
          to_locations[2 * sample + 1] =
              weight * C(height) * ((1 - fx) * (match[2] - match[0]) + fx * (match[3] - match[1]));
        }
      }
    }
  }
}

Tensor ms_deform_attn(
    const Tensor& value,
    at::IntArrayRef spatial_shapes,
    const Tensor& sampling_locations,
    const Tensor& attention_weights) {
  PERCEPTION_GUARD(value);
  const auto type = compute_type(value);
  const Tensor values = value.contiguous(), locations = as_type(sampling_locations, type),
               weights = as_type(attention_weights, type);
  const AttentionLevels levels = read_levels(value, spatial_shapes, sampling_locations, attention_weights);
  const int64_t heads = value.size(2), dim = value.size(3), queries = locations.size(1), points = locations.size(4);
  Tensor output = at::empty({value.size(0), queries, heads * dim}, values.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, values.scalar_type(), "ms_deform_attn", [&] {
    using compute_t = typename Compute<scalar_t>::type;
    const auto kernel = forward_kernel<scalar_t, compute_t>;
    PERCEPTION_LAUNCH(
        kernel, blocks_for(output.numel()), kThreads, 0, values.const_data_ptr<scalar_t>(),
        locations.const_data_ptr<compute_t>(), weights.const_data_ptr<compute_t>(), levels, queries, heads, dim, points,
        output.numel(), output.mutable_data_ptr<scalar_t>());
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> ms_deform_attn_backward(
    const Tensor& grad,
    const Tensor& value,
    at::IntArrayRef spatial_shapes,
    const Tensor& sampling_locations,
    const Tensor& attention_weights) {
  PERCEPTION_GUARD(value);
  const auto type = compute_type(value);
  const Tensor values = value.contiguous(), pulls = grad.to(value.scalar_type()).contiguous(),
               locations = as_type(sampling_locations, type), weights = as_type(attention_weights, type);
  const AttentionLevels levels = read_levels(value, spatial_shapes, sampling_locations, attention_weights);
  const int64_t heads = value.size(2), dim = value.size(3), queries = locations.size(1), points = locations.size(4),
                items = value.size(0) * queries * heads;
  Tensor to_value = at::zeros(values.sizes(), values.options().dtype(type)), to_locations = at::zeros_like(locations),
         to_weights = at::zeros_like(weights);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, values.scalar_type(), "ms_deform_attn_backward", [&] {
    using compute_t = typename Compute<scalar_t>::type;
    const auto kernel = backward_kernel<scalar_t, compute_t>;
    PERCEPTION_LAUNCH_TOGETHER(
        kernel, blocks_for(items, 4), 128, 0, pulls.const_data_ptr<scalar_t>(), values.const_data_ptr<scalar_t>(),
        locations.const_data_ptr<compute_t>(), weights.const_data_ptr<compute_t>(), levels, queries, heads, dim, points,
        items, to_value.mutable_data_ptr<compute_t>(), to_locations.mutable_data_ptr<compute_t>(),
        to_weights.mutable_data_ptr<compute_t>());
  });
  return {
      to_value.to(value.scalar_type()),
      to_locations.to(sampling_locations.scalar_type()),
      to_weights.to(attention_weights.scalar_type())};
}

PERCEPTION_CUDA_KERNELS(m) {
  m.impl("ms_deform_attn", ms_deform_attn);
  m.impl("ms_deform_attn_backward", ms_deform_attn_backward);
}

} // namespace
} // namespace perception
