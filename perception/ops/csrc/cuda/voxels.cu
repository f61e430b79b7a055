#include "../voxels.h"

#include <array>

#include "../layout.h"
#include "platform.h"

namespace perception {
namespace {

struct Side {
  int64_t shape[3];
};

Side read_grid_shape(at::IntArrayRef shape) {
  TORCH_CHECK(shape.size() == 3, "shape must have three numbers, got ", shape);
  return {{shape[0], shape[1], shape[2]}};
}

// A thread per point and channel: those of a point read whole voxels. Bound: 12 + 4 C bytes per point, and the voxels
// that the cache does not hold.
template <typename T>
__global__ void gather_kernel(
    const T* __restrict__ table,
    const T* __restrict__ position,
    Side side,
    int64_t channels,
    int64_t total,
    T* __restrict__ values) {
  PERCEPTION_FOR(item, total) {
    VoxelCorners<T> corners;
    corners.set(position + item / channels * 3, side.shape);
    T sum = 0;
    for (int k = 0; k < 8; ++k) {
      if (corners.row[k] >= 0) {
        sum = multiply_add(corners.weight[k], table[corners.row[k] * channels + item % channels], sum);
      }
    }
    values[item] = sum;
  }
}

template <typename T>
__global__ void scatter_kernel(
    const T* __restrict__ values,
    const T* __restrict__ position,
    Side side,
    int64_t channels,
    int64_t total,
    T* __restrict__ table) {
  PERCEPTION_FOR(item, total) {
    VoxelCorners<T> corners;
    corners.set(position + item / channels * 3, side.shape);
    for (int k = 0; k < 8; ++k) {
      if (corners.row[k] >= 0) {
        atomic_add(table + corners.row[k] * channels + item % channels, corners.weight[k] * values[item]);
      }
    }
  }
}

Tensor trilinear_gather(const Tensor& table, const Tensor& position, at::IntArrayRef shape) {
  const Side side = read_grid_shape(shape);
  check_positions(table, position);
  TORCH_CHECK(table.size(0) == shape[0] * shape[1] * shape[2], "table must have a row per voxel of ", shape);
  PERCEPTION_GUARD(table);
  const Tensor rows = table.contiguous(), places = as_type(position, table.scalar_type());
  Tensor values = at::empty({position.size(0), table.size(1)}, table.options());
  AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "trilinear_gather", [&] {
    PERCEPTION_LAUNCH(
        gather_kernel<scalar_t>, blocks_for(values.numel()), kThreads, 0, rows.const_data_ptr<scalar_t>(),
        places.const_data_ptr<scalar_t>(), side, table.size(1), values.numel(), values.mutable_data_ptr<scalar_t>());
  });
  return values;
}

Tensor trilinear_scatter(const Tensor& values, const Tensor& position, at::IntArrayRef shape) {
  check_positions(values, position);
  TORCH_CHECK(values.size(0) == position.size(0), "there must be a position for each of the values");
  const Side side = read_grid_shape(shape);
  PERCEPTION_GUARD(values);
  const Tensor rows = values.contiguous(), places = as_type(position, values.scalar_type());
  Tensor table = at::zeros({shape[0] * shape[1] * shape[2], values.size(1)}, values.options());
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "trilinear_scatter", [&] {
    PERCEPTION_LAUNCH(
        scatter_kernel<scalar_t>, blocks_for(rows.numel()), kThreads, 0, rows.const_data_ptr<scalar_t>(),
        places.const_data_ptr<scalar_t>(), side, values.size(1), rows.numel(), table.mutable_data_ptr<scalar_t>());
  });
  return table;
}

struct Strides {
  int64_t channel, axis[3];
};

Strides read_strides(const Tensor& grid) {
  return {grid.stride(1), {grid.stride(2), grid.stride(3), grid.stride(4)}};
}

// Threads follow the memory of the grid, with its channels last or first. Bound: 12 bytes per number; neighbours come
// from cache.
template <typename T>
__global__ void variation_kernel(
    const T* __restrict__ grid,
    T* __restrict__ grad,
    Strides from,
    Strides to,
    Side side,
    int64_t channels,
    bool channels_last,
    T weight_x,
    T weight_y,
    T weight_z,
    bool dense,
    int64_t total) {
  const T weight[3] = {weight_x, weight_y, weight_z};
  const int64_t voxels = side.shape[0] * side.shape[1] * side.shape[2];
  PERCEPTION_FOR(item, total) {
    const int64_t channel = channels_last ? item % channels : item / voxels;
    const int64_t voxel = channels_last ? item / channels : item % voxels;
    const int64_t place[3] = {
        voxel / (side.shape[1] * side.shape[2]), voxel / side.shape[2] % side.shape[1], voxel % side.shape[2]};
    const T* v = grid + channel * from.channel;
    T* g = grad + channel * to.channel;
    for (int axis = 0; axis < 3; ++axis) {
      v += place[axis] * from.axis[axis];
      g += place[axis] * to.axis[axis];
    }
    if (!dense && *g == 0) {
      continue;
    }
    T sum = 0;
    for (int axis = 0; axis < 3; ++axis) {
      if (place[axis] > 0) {
        sum += weight[axis] * clamp_difference(*v - v[-from.axis[axis]]);
      }
      if (place[axis] + 1 < side.shape[axis]) {
        sum += weight[axis] * clamp_difference(*v - v[from.axis[axis]]);
      }
    }
    *g += sum;
  }
}

void total_variation_add_grad_(
    const Tensor& grid, Tensor& grad, double weight_x, double weight_y, double weight_z, bool dense) {
  TORCH_CHECK(grid.dim() == 5 && grid.size(0) == 1, "grid must have the shape (1, C, X, Y, Z), got ", grid.sizes());
  check_layout(grid, {grad});
  PERCEPTION_GUARD(grid);
  AT_DISPATCH_FLOATING_TYPES(grid.scalar_type(), "total_variation_add_grad_", [&] {
    const Side side{{grid.size(2), grid.size(3), grid.size(4)}};
    PERCEPTION_LAUNCH(
        variation_kernel<scalar_t>, blocks_for(grid.numel()), kThreads, 0, grid.const_data_ptr<scalar_t>(),
        grad.mutable_data_ptr<scalar_t>(), read_strides(grid), read_strides(grad), side, grid.size(1),
        grid.stride(1) == 1, scalar_t(weight_x / 6), scalar_t(weight_y / 6), scalar_t(weight_z / 6), dense,
        grid.numel());
  });
}

// Bound: 4 reads and 3 writes of 4 bytes per number; entries that are skipped cost the gradient alone.
template <typename T>
__global__ void adam_kernel(
    T* __restrict__ p,
    const T* __restrict__ g,
    T* __restrict__ m,
    T* __restrict__ v,
    const T* __restrict__ scale,
    T step,
    T beta1,
    T beta2,
    T rest1,
    T rest2,
    T eps,
    bool skip_zero_grad,
    int64_t total) {
  PERCEPTION_FOR(i, total) {
    const T pull = g[i];
    if (skip_zero_grad && pull == 0) {
      continue;
    }
    const T mean = multiply_add(rest1, pull, beta1 * m[i]);
    const T square = multiply_add(rest2 * pull, pull, beta2 * v[i]);
    m[i] = mean;
    v[i] = square;
    p[i] -= mean / (std::sqrt(square) + eps) * (scale == nullptr ? step : step * scale[i]);
  }
}

void masked_adam_(
    Tensor& parameter,
    const Tensor& grad,
    Tensor& exp_avg,
    Tensor& exp_avg_sq,
    const std::optional<Tensor>& scale,
    double step_size,
    double beta1,
    double beta2,
    double eps,
    bool skip_zero_grad) {
  check_layout(parameter, {grad, exp_avg, exp_avg_sq});
  if (scale.has_value()) {
    check_layout(parameter, {*scale});
  }
  PERCEPTION_GUARD(parameter);
  AT_DISPATCH_FLOATING_TYPES(parameter.scalar_type(), "masked_adam_", [&] {
    PERCEPTION_LAUNCH(
        adam_kernel<scalar_t>, blocks_for(parameter.numel()), kThreads, 0, parameter.mutable_data_ptr<scalar_t>(),
        grad.const_data_ptr<scalar_t>(), exp_avg.mutable_data_ptr<scalar_t>(),
        exp_avg_sq.mutable_data_ptr<scalar_t>(), scale.has_value() ? scale->const_data_ptr<scalar_t>() : nullptr,
        scalar_t(step_size), scalar_t(beta1), scalar_t(beta2), scalar_t(1 - beta1), scalar_t(1 - beta2), scalar_t(eps),
        skip_zero_grad, parameter.numel());
  });
}

// Bound: 3 reads and 2 writes of 4 bytes per number of a marked row.
template <typename T>
__global__ void rmsprop_kernel(
    T* __restrict__ p,
    const T* __restrict__ g,
    T* __restrict__ v,
    const bool* __restrict__ mask,
    int64_t channels,
    T lr,
    T beta,
    T rest,
    T eps,
    int64_t total) {
  PERCEPTION_FOR(i, total) {
    if (mask[i / channels]) {
      const T square = g[i] * g[i];
      const T mean = v[i] == 0 ? square : multiply_add(rest, square, beta * v[i]);
      v[i] = mean;
      p[i] -= lr * g[i] / (std::sqrt(mean) + eps);
    }
  }
}

void masked_rmsprop_(
    Tensor& parameter,
    const Tensor& grad,
    Tensor& square_avg,
    const Tensor& mask,
    double lr,
    double beta,
    double eps) {
  TORCH_CHECK(parameter.dim() == 2 && parameter.is_contiguous(), "parameter must be a contiguous matrix");
  check_layout(parameter, {grad, square_avg});
  check_devices(parameter, {mask});
  TORCH_CHECK(mask.scalar_type() == at::kBool && mask.numel() == parameter.size(0), "mask must hold a bool per row");
  PERCEPTION_GUARD(parameter);
  const Tensor marks = mask.contiguous();
  AT_DISPATCH_FLOATING_TYPES(parameter.scalar_type(), "masked_rmsprop_", [&] {
    PERCEPTION_LAUNCH(
        rmsprop_kernel<scalar_t>, blocks_for(parameter.numel()), kThreads, 0, parameter.mutable_data_ptr<scalar_t>(),
        grad.const_data_ptr<scalar_t>(), square_avg.mutable_data_ptr<scalar_t>(), marks.const_data_ptr<bool>(),
        parameter.size(1), scalar_t(lr), scalar_t(beta), scalar_t(1 - beta), scalar_t(eps), parameter.numel());
  });
}

// A thread per level and point, level by level, so that one table at a time fills the cache. Bound: 12 bytes of position
// and 4 F of result per level and point, and the entries that the cache does not hold.
template <typename T>
__global__ void hash_kernel(
    const T* __restrict__ positions,
    const T* __restrict__ params,
    HashLevels levels,
    int64_t count,
    int64_t features,
    T* __restrict__ encoded) {
  PERCEPTION_FOR(item, count * levels.count) {
    const int64_t level = item / count, i = item % count;
    HashCorners<T> corners;
    corners.set(positions + 3 * i, levels.level[level]);
    T* out = encoded + (i * levels.count + level) * features;
    for (int64_t f = 0; f < features; ++f) {
      T sum = 0;
      for (int k = 0; k < 8; ++k) {
        sum = multiply_add(corners.weight(k), params[corners.entry[k] * features + f], sum);
      }
      out[f] = sum;
    }
  }
}

template <typename T>
__global__ void hash_params_kernel(
    const T* __restrict__ grad,
    const T* __restrict__ positions,
    HashLevels levels,
    int64_t count,
    int64_t features,
    T* __restrict__ out) {
  PERCEPTION_FOR(item, count * levels.count) {
    const int64_t level = item / count, i = item % count;
    HashCorners<T> corners;
    corners.set(positions + 3 * i, levels.level[level]);
    const T* pull = grad + (i * levels.count + level) * features;
    for (int k = 0; k < 8; ++k) {
      const T weight = corners.weight(k);
      for (int64_t f = 0; f < features; ++f) {
        atomic_add(out + corners.entry[k] * features + f, weight * pull[f]);
      }
    }
  }
}

template <typename T>
__global__ void hash_positions_kernel(
    const T* __restrict__ grad,
    const T* __restrict__ positions,
    const T* __restrict__ params,
    HashLevels levels,
    int64_t count,
    int64_t features,
    T* __restrict__ out) {
  PERCEPTION_FOR(i, count) {
    T sum[3] = {0, 0, 0};
    for (int64_t level = 0; level < levels.count; ++level) {
      HashCorners<T> corners;
      corners.set(positions + 3 * i, levels.level[level]);
      const T* pull = grad + (i * levels.count + level) * features;
      for (int k = 0; k < 8; ++k) {
        T match = 0;
        for (int64_t f = 0; f < features; ++f) {
          match = multiply_add(pull[f], params[corners.entry[k] * features + f], match);
        }
        for (int axis = 0; axis < 3; ++axis) {
          sum[axis] += match * corners.slope(k, axis) * T(levels.level[level].scale);
        }
      }
    }
    for (int axis = 0; axis < 3; ++axis) {
      out[3 * i + axis] = sum[axis];
    }
  }
}

Tensor hash_grid(
    const Tensor& positions,
    const Tensor& params,
    at::IntArrayRef offsets,
    at::IntArrayRef resolutions,
    at::ArrayRef<double> scales) {
  const HashLevels levels = read_hash_levels(positions, params, offsets, resolutions, scales);
  PERCEPTION_GUARD(params);
  const int64_t count = positions.size(0), features = params.size(1);
  const Tensor table = params.contiguous(), places = as_type(positions, params.scalar_type());
  Tensor encoded = at::empty({count, levels.count * features}, params.options());
  AT_DISPATCH_FLOATING_TYPES(params.scalar_type(), "hash_grid", [&] {
    PERCEPTION_LAUNCH(
        hash_kernel<scalar_t>, blocks_for(count * levels.count), kThreads, 0, places.const_data_ptr<scalar_t>(),
        table.const_data_ptr<scalar_t>(), levels, count, features, encoded.mutable_data_ptr<scalar_t>());
  });
  return encoded;
}

std::tuple<Tensor, Tensor> hash_grid_backward(
    const Tensor& grad,
    const Tensor& positions,
    const Tensor& params,
    at::IntArrayRef offsets,
    at::IntArrayRef resolutions,
    at::ArrayRef<double> scales,
    bool to_positions,
    bool to_params) {
  const HashLevels levels = read_hash_levels(positions, params, offsets, resolutions, scales);
  PERCEPTION_GUARD(params);
  const auto type = params.scalar_type();
  const int64_t count = positions.size(0), features = params.size(1);
  const Tensor table = params.contiguous(), places = as_type(positions, type), pulls = as_type(grad, type);
  Tensor grad_positions = at::empty({to_positions ? count : 0, 3}, params.options());
  Tensor grad_params = at::zeros({to_params ? params.size(0) : 0, features}, params.options());
  AT_DISPATCH_FLOATING_TYPES(type, "hash_grid_backward", [&] {
    const scalar_t* pull = pulls.const_data_ptr<scalar_t>();
    const scalar_t* place = places.const_data_ptr<scalar_t>();
    PERCEPTION_LAUNCH(
        hash_params_kernel<scalar_t>, to_params ? blocks_for(count * levels.count) : 0, kThreads, 0, pull, place,
        levels, count, features, grad_params.mutable_data_ptr<scalar_t>());
    PERCEPTION_LAUNCH(
        hash_positions_kernel<scalar_t>, to_positions ? blocks_for(count) : 0, kThreads, 0, pull, place,
        table.const_data_ptr<scalar_t>(), levels, count, features, grad_positions.mutable_data_ptr<scalar_t>());
  });
  return {grad_positions, grad_params};
}

PERCEPTION_CUDA_KERNELS(m) {
  m.impl("trilinear_gather", trilinear_gather);
  m.impl("trilinear_scatter", trilinear_scatter);
  m.impl("total_variation_add_grad_", total_variation_add_grad_);
  m.impl("masked_adam_", masked_adam_);
  m.impl("masked_rmsprop_", masked_rmsprop_);
  m.impl("hash_grid", hash_grid);
  m.impl("hash_grid_backward", hash_grid_backward);
}

} // namespace
} // namespace perception
