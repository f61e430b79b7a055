#include "../sparse_field.h"

#include "platform.h"

namespace perception {
namespace {

// A warp per ray. All lanes walk together; lane `9 c + l` holds coefficient l of colour c, so that a voxel's row is one
// read. Bound: 32 bytes of links and density per sample in an occupied cell, 108 bytes per voxel of a sample that is seen.
template <typename T>
__device__ __forceinline__ T own_coefficient(const SparseField<T>& field, const RayWalk<T>& walk, int lane) {
  T value = 0;
  for (int k = 0; k < 8; ++k) {
    if (walk.rows[k] >= 0 && lane < field.channels) {
      value = multiply_add(walk.cell.weight(k), field.sh[walk.rows[k] * field.channels + lane], value);
    }
  }
  return value;
}

// Lane i gets the colour i % 3.
template <typename T>
__device__ __forceinline__ T colour_of_lane(T part, int lane, int functions) {
  T value = T(0.5);
  for (int i = 0; i < functions; ++i) {
    value += __shfl_sync(kWholeWarp, part, lane % 3 * functions + i);
  }
  return value;
}

template <typename T>
__global__ void march_kernel(
    SparseField<T> field,
    MarchSettings<T> settings,
    const T* __restrict__ origin,
    const T* __restrict__ direction,
    const T* __restrict__ basis,
    const T* __restrict__ length,
    int64_t rays,
    int functions,
    T* __restrict__ rgb,
    T* __restrict__ left,
    T* __restrict__ depth) {
  const int lane = threadIdx.x % 32;
  const int64_t warps = int64_t(gridDim.x) * (blockDim.x / 32);
  for (int64_t ray = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; ray < rays; ray += warps) {
    const T function = lane < field.channels ? basis[ray * functions + lane % functions] : T(0);
    T optical = 0, light = 1, seen = 0, distance = 0;
    RayWalk<T> walk;
    walk.begin(field, origin + 3 * ray, direction + 3 * ray, length[ray], settings);
    while (walk.next(field)) {
      const T part = walk.sigma * length[ray] * settings.step;
      const T weight = light * -std::expm1(-part);
      const T value = colour_of_lane(own_coefficient(field, walk, lane) * function, lane, functions);
      seen += weight * greatest(value, T(0));
      distance += weight * walk.t * length[ray];
      optical += part;
      light = std::exp(-optical);
      if (light < settings.stop_thresh) {
        light = 0;
        break;
      }
    }
    if (lane < 3) {
      rgb[3 * ray + lane] = seen + light * settings.background;
    }
    if (lane == 0) {
      left[ray] = light;
      depth[ray] = distance;
    }
  }
}

template <typename T>
__global__ void march_backward_kernel(
    SparseField<T> field,
    MarchSettings<T> settings,
    const T* __restrict__ origin,
    const T* __restrict__ direction,
    const T* __restrict__ basis,
    const T* __restrict__ length,
    const T* __restrict__ grad_rgb,
    const T* __restrict__ rgb,
    int64_t rays,
    int functions,
    T sparsity,
    T* __restrict__ grad_density,
    T* __restrict__ grad_sh,
    bool* __restrict__ touched) {
  const int lane = threadIdx.x % 32;
  const int64_t warps = int64_t(gridDim.x) * (blockDim.x / 32);
  for (int64_t ray = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; ray < rays; ray += warps) {
    const T function = lane < field.channels ? basis[ray * functions + lane % functions] : T(0);
    const int own_colour = lane < field.channels ? lane / functions : 0;
    const T* g = grad_rgb + 3 * ray;
    T optical = 0, light = 1, rest = rgb[3 * ray] * g[0] + rgb[3 * ray + 1] * g[1] + rgb[3 * ray + 2] * g[2];
    const T delta = length[ray] * settings.step;
    RayWalk<T> walk;
    walk.begin(field, origin + 3 * ray, direction + 3 * ray, length[ray], settings);
    while (walk.next(field)) {
      const T part = walk.sigma * delta, weight = light * -std::expm1(-part);
      const T value = colour_of_lane(own_coefficient(field, walk, lane) * function, lane, functions);
      T value_pull = 0;
      for (int colour = 0; colour < 3; ++colour) {
        value_pull += greatest(__shfl_sync(kWholeWarp, value, colour), T(0)) * g[colour];
      }
      const T own_value = __shfl_sync(kWholeWarp, value, own_colour);
      rest -= weight * value_pull;
      optical += part;
      light = std::exp(-optical);
      const T sigma_pull =
          delta * (value_pull * light - rest) + sparsity * 4 * walk.sigma / (1 + 2 * walk.sigma * walk.sigma);
      const T own_pull = own_value >= 0 ? weight * g[own_colour] * function : T(0);
      for (int k = 0; k < 8; ++k) {
        if (walk.rows[k] < 0) {
          continue;
        }
        if (lane < field.channels) {
          atomic_add(grad_sh + walk.rows[k] * field.channels + lane, walk.cell.weight(k) * own_pull);
        }
        if (lane == 0) {
          atomic_add(grad_density + walk.rows[k], walk.cell.weight(k) * sigma_pull);
          touched[walk.rows[k]] = true;
        }
      }
      if (light < settings.stop_thresh) {
        break;
      }
    }
  }
}

std::tuple<Tensor, Tensor, Tensor> march_rays(
    const Tensor& links,
    const Tensor& density,
    const Tensor& sh,
    const Tensor& levels,
    const Tensor& origin,
    const Tensor& direction,
    const Tensor& basis,
    const Tensor& length,
    double step,
    double near,
    double background,
    double sigma_thresh,
    double stop_thresh) {
  PERCEPTION_GUARD(density);
  MarchInputs in{links, density, sh, levels, origin, direction, basis, length,
                 step,  near,    background, sigma_thresh, stop_thresh};
  in.settle();
  const int64_t rays = origin.size(0);
  Tensor rgb = at::empty({rays, 3}, origin.options()), left = at::empty({rays}, origin.options()),
         depth = at::empty({rays}, origin.options());
  AT_DISPATCH_FLOATING_TYPES(origin.scalar_type(), "march_rays", [&] {
    PERCEPTION_LAUNCH_TOGETHER(
        march_kernel<scalar_t>, blocks_for(rays, 4), 128, 0, in.field<scalar_t>(), in.settings<scalar_t>(),
        in.origin.const_data_ptr<scalar_t>(), in.direction.const_data_ptr<scalar_t>(),
        in.basis.const_data_ptr<scalar_t>(), in.length.const_data_ptr<scalar_t>(), rays, int(basis.size(1)),
        rgb.mutable_data_ptr<scalar_t>(), left.mutable_data_ptr<scalar_t>(), depth.mutable_data_ptr<scalar_t>());
  });
  return {rgb, left, depth};
}

std::tuple<Tensor, Tensor, Tensor> march_rays_backward(
    const Tensor& grad_rgb,
    const Tensor& rgb,
    const Tensor& links,
    const Tensor& density,
    const Tensor& sh,
    const Tensor& levels,
    const Tensor& origin,
    const Tensor& direction,
    const Tensor& basis,
    const Tensor& length,
    double step,
    double near,
    double background,
    double sigma_thresh,
    double stop_thresh,
    double sparsity) {
  PERCEPTION_GUARD(density);
  MarchInputs in{links, density, sh, levels, origin, direction, basis, length,
                 step,  near,    background, sigma_thresh, stop_thresh};
  in.settle();
  TORCH_CHECK(grad_rgb.sizes() == origin.sizes() && rgb.sizes() == origin.sizes(), "a colour for each ray is needed");
  check_devices(density, {grad_rgb, rgb});
  const Tensor pull = grad_rgb.contiguous(), colours = rgb.contiguous();
  const int64_t rays = origin.size(0);
  Tensor grad_density = at::zeros_like(in.density), grad_sh = at::zeros_like(in.sh),
         touched = at::zeros({density.size(0)}, density.options().dtype(at::kBool));
  AT_DISPATCH_FLOATING_TYPES(origin.scalar_type(), "march_rays_backward", [&] {
    PERCEPTION_LAUNCH_TOGETHER(
        march_backward_kernel<scalar_t>, blocks_for(rays, 4), 128, 0, in.field<scalar_t>(), in.settings<scalar_t>(),
        in.origin.const_data_ptr<scalar_t>(), in.direction.const_data_ptr<scalar_t>(),
        in.basis.const_data_ptr<scalar_t>(), in.length.const_data_ptr<scalar_t>(), pull.const_data_ptr<scalar_t>(),
        colours.const_data_ptr<scalar_t>(), rays, int(basis.size(1)), scalar_t(sparsity),
        grad_density.mutable_data_ptr<scalar_t>(), grad_sh.mutable_data_ptr<scalar_t>(),
        touched.mutable_data_ptr<bool>());
  });
  return {grad_density, grad_sh, touched};
}

// A thread per channel of a cell. Bound: 16 bytes read and 16 written, atomically, per channel of an occupied cell.
template <typename T>
__global__ void variation_kernel(
    const int32_t* __restrict__ links,
    int64_t size_x,
    int64_t size_y,
    int64_t size_z,
    const T* __restrict__ table,
    int64_t channels,
    const int64_t* __restrict__ cells,
    int64_t total,
    T weight,
    bool level_edges,
    bool legacy,
    T* __restrict__ grad,
    bool* __restrict__ touched) {
  const int64_t size[3] = {size_x, size_y, size_z};
  const T scale[3] = {T(size_x) / 256, T(size_y) / 256, T(size_z) / 256};
  PERCEPTION_FOR(i, total) {
    VariationCell cell;
    cell.set(links, size, cells[i / channels], level_edges, legacy);
    if (cell.used) {
      T pull[4];
      cell.pulls(table, channels, i % channels, level_edges, weight, scale, pull);
      for (int k = 0; k < 4; ++k) {
        if (cell.rows[k] >= 0 && pull[k] != 0) {
          atomic_add(grad + cell.rows[k] * channels + i % channels, pull[k]);
          touched[cell.rows[k]] = true;
        }
      }
    }
  }
}

void sparse_total_variation_add_grad_(
    const Tensor& links,
    const Tensor& table,
    Tensor& grad,
    Tensor& touched,
    const Tensor& cells,
    double weight,
    bool level_edges,
    bool legacy) {
  check_variation(links, table, grad, touched, cells);
  if (cells.numel() == 0 || table.numel() == 0) {
    return;
  }
  PERCEPTION_GUARD(table);
  const Tensor rows_at = links.contiguous(), values = table.contiguous(), numbers = cells.contiguous();
  const int64_t total = cells.size(0) * table.size(1);
  AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "sparse_total_variation_add_grad_", [&] {
    PERCEPTION_LAUNCH(
        variation_kernel<scalar_t>, blocks_for(total), kThreads, 0, rows_at.const_data_ptr<int32_t>(), links.size(0),
        links.size(1), links.size(2), values.const_data_ptr<scalar_t>(), table.size(1),
        numbers.const_data_ptr<int64_t>(), total, scalar_t(weight) / scalar_t(cells.size(0)),
        level_edges, legacy, grad.mutable_data_ptr<scalar_t>(), touched.mutable_data_ptr<bool>());
  });
}

// Marks what is within `times` of a marked voxel along one axis. Bound: two bytes per voxel, other reads are cached.
__global__ void dilate_kernel(
    const bool* __restrict__ in, bool* __restrict__ out, int64_t total, int64_t size, int64_t stride, int64_t times) {
  PERCEPTION_FOR(i, total) {
    const int64_t place = i / stride % size;
    const int64_t before = least(place, times), after = least(size - 1 - place, times);
    bool any = false;
    for (int64_t d = -before; d <= after && !any; ++d) {
      any = in[i + d * stride];
    }
    out[i] = any;
  }
}

Tensor dilate_mask(const Tensor& mask, int64_t times) {
  check_mask(mask, times);
  PERCEPTION_GUARD(mask);
  Tensor marks = mask.contiguous(), result = at::empty_like(marks);
  int64_t stride = 1;
  for (int axis = 2; axis >= 0; --axis) {
    PERCEPTION_LAUNCH(
        dilate_kernel, blocks_for(mask.numel()), kThreads, 0, marks.const_data_ptr<bool>(),
        result.mutable_data_ptr<bool>(), mask.numel(), mask.size(axis), stride, times);
    stride *= mask.size(axis);
    if (axis > 0) {
      marks = axis == 2 ? at::empty_like(result) : marks;
      std::swap(marks, result);
    }
  }
  return result;
}

PERCEPTION_CUDA_KERNELS(m) {
  m.impl("march_rays", march_rays);
  m.impl("march_rays_backward", march_rays_backward);
  m.impl("sparse_total_variation_add_grad_", sparse_total_variation_add_grad_);
  m.impl("dilate_mask", dilate_mask);
}

} // namespace
} // namespace perception
