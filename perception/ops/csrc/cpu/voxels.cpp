#include "../voxels.h"

#include "../layout.h"
#include "common.h"

namespace perception {
namespace {

std::array<int64_t, 3> read_grid_shape(at::IntArrayRef shape) {
  TORCH_CHECK(shape.size() == 3, "shape must have three numbers, got ", shape);
  return {shape[0], shape[1], shape[2]};
}

Tensor trilinear_gather(const Tensor& table, const Tensor& position, at::IntArrayRef shape) {
  const auto size = read_grid_shape(shape);
  check_positions(table, position);
  const int64_t count = position.size(0), channels = table.size(1);
  TORCH_CHECK(table.size(0) == size[0] * size[1] * size[2], "table must have a row per voxel of ", shape);
  const Tensor rows = table.contiguous(), places = as_type(position, table.scalar_type());
  Tensor values = at::zeros({count, channels}, table.options());
  AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "trilinear_gather", [&] {
    const scalar_t* in = rows.const_data_ptr<scalar_t>();
    const scalar_t* place = places.const_data_ptr<scalar_t>();
    scalar_t* out = values.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, count, grain(8 * channels + 40), [&](int64_t begin, int64_t end) {
      VoxelCorners<scalar_t> corners;
      for (int64_t i = begin; i < end; ++i) {
        corners.set(place + 3 * i, size.data());
        for (int k = 0; k < 8; ++k) {
          if (corners.row[k] >= 0) {
            add_scaled(out + i * channels, in + corners.row[k] * channels, corners.weight[k], channels);
          }
        }
      }
    });
  });
  return values;
}

// Threads own ranges of voxels and pass over all points, so that sums have one order and need no atomics.
Tensor trilinear_scatter(const Tensor& values, const Tensor& position, at::IntArrayRef shape) {
  check_positions(values, position);
  TORCH_CHECK(values.size(0) == position.size(0), "there must be a position for each of the values");
  const auto size = read_grid_shape(shape);
  const int64_t count = position.size(0), channels = values.size(1), voxels = size[0] * size[1] * size[2];
  const Tensor rows = values.contiguous(), places = as_type(position, values.scalar_type());
  Tensor table = at::zeros({voxels, channels}, values.options());
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "trilinear_scatter", [&] {
    const scalar_t* in = rows.const_data_ptr<scalar_t>();
    const scalar_t* place = places.const_data_ptr<scalar_t>();
    scalar_t* out = table.mutable_data_ptr<scalar_t>();
    // Ranges are bounded so that the points are not read once per thread of a large machine.
    const int64_t share = std::max<int64_t>((voxels + 7) / 8, kTaskSize);
    at::parallel_for(0, voxels, share, [&](int64_t begin, int64_t end) {
      VoxelCorners<scalar_t> corners;
      for (int64_t i = 0; i < count; ++i) {
        corners.set(place + 3 * i, size.data());
        for (int k = 0; k < 8; ++k) {
          if (corners.row[k] >= begin && corners.row[k] < end) {
            add_scaled(out + corners.row[k] * channels, in + i * channels, corners.weight[k], channels);
          }
        }
      }
    });
  });
  return table;
}

// sum[i] += weight * clamp(values[i] - values[i + step])
template <typename T>
void add_pull(T* __restrict__ sum, const T* __restrict__ values, int64_t step, T weight, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    sum[i] += weight * clamp_difference(values[i] - values[i + step]);
  }
}

template <typename T>
void add_where(T* __restrict__ grad, const T* __restrict__ sum, bool dense, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    grad[i] = dense || grad[i] != 0 ? grad[i] + sum[i] : grad[i];
  }
}

// A line is what lies together in memory: the numbers along z, of all channels where these lie last.
void total_variation_add_grad_(
    const Tensor& grid, Tensor& grad, double weight_x, double weight_y, double weight_z, bool dense) {
  TORCH_CHECK(grid.dim() == 5 && grid.size(0) == 1, "grid must have the shape (1, C, X, Y, Z), got ", grid.sizes());
  check_layout(grid, {grad});
  const bool last = grid.is_contiguous(at::MemoryFormat::ChannelsLast3d);
  TORCH_CHECK(last || grid.is_contiguous(), "grid must be contiguous, with its channels first or last");
  const int64_t channels = grid.size(1), size_x = grid.size(2), size_y = grid.size(3);
  const int64_t step = last ? channels : 1, length = step * grid.size(4);
  AT_DISPATCH_FLOATING_TYPES(grid.scalar_type(), "total_variation_add_grad_", [&] {
    const scalar_t* values = grid.const_data_ptr<scalar_t>();
    scalar_t* out = grad.mutable_data_ptr<scalar_t>();
    const scalar_t wx = weight_x / 6, wy = weight_y / 6, wz = weight_z / 6;
    const int64_t lines = grid.numel() / std::max<int64_t>(length, 1);
    at::parallel_for(0, lines, grain(8 * length), [&](int64_t begin, int64_t end) {
      std::vector<scalar_t> sum(length);
      for (int64_t line = begin; line < end; ++line) {
        const int64_t y = line % size_y, x = line / size_y % size_x;
        const scalar_t* v = values + line * length;
        std::fill(sum.begin(), sum.end(), scalar_t(0));
        if (x > 0) {
          add_pull(sum.data(), v, -size_y * length, wx, length);
        }
        if (x + 1 < size_x) {
          add_pull(sum.data(), v, size_y * length, wx, length);
        }
        if (y > 0) {
          add_pull(sum.data(), v, -length, wy, length);
        }
        if (y + 1 < size_y) {
          add_pull(sum.data(), v, length, wy, length);
        }
        add_pull(sum.data() + step, v + step, -step, wz, length - step);
        add_pull(sum.data(), v, step, wz, length - step);
        add_where(out + line * length, sum.data(), dense, length);
      }
    });
  });
}

template <typename T>
struct Adam {
  T beta1, beta2, rest1, rest2, eps, step;
  bool skip_zero_grad;

  void run(
      T* __restrict__ p, const T* __restrict__ g, T* __restrict__ m, T* __restrict__ v, const T* __restrict__ scale,
      int64_t count) const {
    if (skip_zero_grad) { // most of a grid has no gradient, and then the rest need not be read
      int any = 0;
#pragma omp simd reduction(| : any)
      for (int64_t i = 0; i < count; ++i) {
        any |= g[i] != 0;
      }
      if (!any) {
        return;
      }
    }
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const bool update = !skip_zero_grad || g[i] != 0;
      const T mean = multiply_add(rest1, g[i], beta1 * m[i]);
      const T square = multiply_add(rest2 * g[i], g[i], beta2 * v[i]);
      const T change = mean / (std::sqrt(square) + eps) * (scale ? step * scale[i] : step);
      m[i] = update ? mean : m[i];
      v[i] = update ? square : v[i];
      p[i] = update ? p[i] - change : p[i];
    }
  }
};

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
  AT_DISPATCH_FLOATING_TYPES(parameter.scalar_type(), "masked_adam_", [&] {
    scalar_t* p = parameter.mutable_data_ptr<scalar_t>();
    const scalar_t* g = grad.const_data_ptr<scalar_t>();
    scalar_t* m = exp_avg.mutable_data_ptr<scalar_t>();
    scalar_t* v = exp_avg_sq.mutable_data_ptr<scalar_t>();
    const scalar_t* s = scale.has_value() ? scale->const_data_ptr<scalar_t>() : nullptr;
    const Adam<scalar_t> adam{
        scalar_t(beta1), scalar_t(beta2), scalar_t(1 - beta1), scalar_t(1 - beta2),
        scalar_t(eps),   scalar_t(step_size), skip_zero_grad};
    constexpr int64_t kRun = 64;
    at::parallel_for(0, parameter.numel(), kTaskSize, [&](int64_t begin, int64_t end) {
      for (int64_t start = begin; start < end; start += kRun) {
        const int64_t stop = std::min(start + kRun, end);
        adam.run(p + start, g + start, m + start, v + start, s ? s + start : nullptr, stop - start);
      }
    });
  });
}

// parameter, grad and square_avg are (V, C), mask is (V,) bool.
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
  const int64_t rows = parameter.size(0), channels = parameter.size(1);
  check_devices(parameter, {mask});
  TORCH_CHECK(mask.scalar_type() == at::kBool && mask.numel() == rows, "mask must hold a bool per row");
  const Tensor marks = mask.contiguous();
  AT_DISPATCH_FLOATING_TYPES(parameter.scalar_type(), "masked_rmsprop_", [&] {
    scalar_t* p = parameter.mutable_data_ptr<scalar_t>();
    const scalar_t* g = grad.const_data_ptr<scalar_t>();
    scalar_t* v = square_avg.mutable_data_ptr<scalar_t>();
    const bool* marked = marks.const_data_ptr<bool>();
    const scalar_t keep = beta, rest = 1 - beta, e = eps, rate = lr;
    at::parallel_for(0, rows, grain(4 * channels), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        if (!marked[row]) {
          continue;
        }
        for (int64_t i = row * channels; i < (row + 1) * channels; ++i) {
          const scalar_t square = g[i] * g[i];
          const scalar_t mean = v[i] == 0 ? square : multiply_add(rest, square, keep * v[i]);
          v[i] = mean;
          p[i] -= rate * g[i] / (std::sqrt(mean) + e);
        }
      }
    });
  });
}

// A task takes a run of points through all levels, level by level, so that one table at a time fills the cache.
Tensor hash_grid(
    const Tensor& positions,
    const Tensor& params,
    at::IntArrayRef offsets,
    at::IntArrayRef resolutions,
    at::ArrayRef<double> scales) {
  const HashLevels levels = read_hash_levels(positions, params, offsets, resolutions, scales);
  const int64_t count = positions.size(0), features = params.size(1), width = levels.count * features;
  const Tensor table = params.contiguous(), places = as_type(positions, params.scalar_type());
  Tensor encoded = at::zeros({count, width}, params.options());
  AT_DISPATCH_FLOATING_TYPES(params.scalar_type(), "hash_grid", [&] {
    const scalar_t* in = table.const_data_ptr<scalar_t>();
    const scalar_t* place = places.const_data_ptr<scalar_t>();
    scalar_t* out = encoded.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, count, grain(60 * levels.count), [&](int64_t begin, int64_t end) {
      HashCorners<scalar_t> corners;
      for (int64_t level = 0; level < levels.count; ++level) {
        for (int64_t i = begin; i < end; ++i) {
          corners.set(place + 3 * i, levels.level[level]);
          scalar_t* sum = out + i * width + level * features;
          for (int k = 0; k < 8; ++k) {
            const scalar_t weight = corners.weight(k);
            for (int64_t f = 0; f < features; ++f) {
              sum[f] = multiply_add(weight, in[corners.entry[k] * features + f], sum[f]);
            }
          }
        }
      }
    });
  });
  return encoded;
}

// By the parameters: a task is a level, whose entries no other touches. By the positions: a task is a run of points.
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
  const int64_t count = positions.size(0), features = params.size(1), width = levels.count * features;
  const Tensor table = params.contiguous(), places = as_type(positions, params.scalar_type()),
               pulls = as_type(grad, params.scalar_type());
  Tensor grad_positions = at::zeros({to_positions ? count : 0, 3}, params.options());
  Tensor grad_params = at::zeros({to_params ? params.size(0) : 0, features}, params.options());
  AT_DISPATCH_FLOATING_TYPES(params.scalar_type(), "hash_grid_backward", [&] {
    const scalar_t* in = table.const_data_ptr<scalar_t>();
    const scalar_t* place = places.const_data_ptr<scalar_t>();
    const scalar_t* pull = pulls.const_data_ptr<scalar_t>();
    scalar_t* out_positions = grad_positions.mutable_data_ptr<scalar_t>();
    scalar_t* out_params = grad_params.mutable_data_ptr<scalar_t>();
    if (to_params) {
      at::parallel_for(0, levels.count, 1, [&](int64_t begin, int64_t end) {
        HashCorners<scalar_t> corners;
        for (int64_t level = begin; level < end; ++level) {
          for (int64_t i = 0; i < count; ++i) {
            corners.set(place + 3 * i, levels.level[level]);
            const scalar_t* g = pull + i * width + level * features;
            for (int k = 0; k < 8; ++k) {
              const scalar_t weight = corners.weight(k);
              for (int64_t f = 0; f < features; ++f) {
                scalar_t& sum = out_params[corners.entry[k] * features + f];
                sum = multiply_add(weight, g[f], sum);
              }
            }
          }
        }
      });
    }
    if (to_positions) {
      at::parallel_for(0, count, grain(100 * levels.count), [&](int64_t begin, int64_t end) {
        HashCorners<scalar_t> corners;
        for (int64_t level = 0; level < levels.count; ++level) {
          for (int64_t i = begin; i < end; ++i) {
            corners.set(place + 3 * i, levels.level[level]);
            const scalar_t* g = pull + i * width + level * features;
            for (int k = 0; k < 8; ++k) {
              scalar_t match = 0;
              for (int64_t f = 0; f < features; ++f) {
                match += g[f] * in[corners.entry[k] * features + f];
              }
              for (int axis = 0; axis < 3; ++axis) {
                out_positions[3 * i + axis] += match * corners.slope(k, axis) * scalar_t(levels.level[level].scale);
              }
            }
          }
        }
      });
    }
  });
  return {grad_positions, grad_params};
}

PERCEPTION_CPU_KERNELS(m) {
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
