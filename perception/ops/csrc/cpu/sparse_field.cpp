#include "../sparse_field.h"

#include "common.h"

namespace perception {
namespace {

constexpr int64_t kRaysPerTask = 128;

template <typename T>
void gather_sh(const SparseField<T>& field, const RayWalk<T>& walk, T* sh) {
  std::fill(sh, sh + field.channels, T(0));
  for (int k = 0; k < 8; ++k) {
    if (walk.rows[k] >= 0) {
      add_scaled(sh, field.sh + walk.rows[k] * field.channels, walk.cell.weight(k), field.channels);
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
  MarchInputs in{links, density, sh, levels, origin, direction, basis, length,
                 step,  near,    background, sigma_thresh, stop_thresh};
  in.settle();
  const int64_t rays = origin.size(0), functions = basis.size(1);
  Tensor rgb = at::empty({rays, 3}, origin.options()), left = at::empty({rays}, origin.options()),
         depth = at::empty({rays}, origin.options());
  AT_DISPATCH_FLOATING_TYPES(origin.scalar_type(), "march_rays", [&] {
    const auto field = in.field<scalar_t>();
    const auto settings = in.settings<scalar_t>();
    const scalar_t* from = in.origin.const_data_ptr<scalar_t>();
    const scalar_t* along = in.direction.const_data_ptr<scalar_t>();
    const scalar_t* functions_at = in.basis.const_data_ptr<scalar_t>();
    const scalar_t* lengths = in.length.const_data_ptr<scalar_t>();
    scalar_t* rgb_out = rgb.mutable_data_ptr<scalar_t>();
    scalar_t* left_out = left.mutable_data_ptr<scalar_t>();
    scalar_t* depth_out = depth.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, rays, grain(20000), [&](int64_t begin, int64_t end) {
      RayWalk<scalar_t> walk;
      scalar_t coefficients[kMaxShChannels];
      for (int64_t ray = begin; ray < end; ++ray) {
        const scalar_t* functions_of = functions_at + ray * functions;
        scalar_t optical = 0, light = 1, seen[3] = {0, 0, 0}, distance = 0;
        walk.begin(field, from + 3 * ray, along + 3 * ray, lengths[ray], settings);
        while (walk.next(field)) {
          const scalar_t part = walk.sigma * lengths[ray] * settings.step;
          const scalar_t weight = light * -std::expm1(-part);
          gather_sh(field, walk, coefficients);
          for (int colour = 0; colour < 3; ++colour) {
            const scalar_t value = dot(coefficients + colour * functions, functions_of, functions) + scalar_t(0.5);
            seen[colour] += weight * greatest(value, scalar_t(0));
          }
          distance += weight * walk.t * lengths[ray];
          optical += part;
          light = std::exp(-optical);
          if (light < settings.stop_thresh) {
            light = 0;
            break;
          }
        }
        for (int colour = 0; colour < 3; ++colour) {
          rgb_out[3 * ray + colour] = seen[colour] + light * settings.background;
        }
        left_out[ray] = light;
        depth_out[ray] = distance;
      }
    });
  });
  return {rgb, left, depth};
}

// What a sample adds to the voxels around it.
template <typename T>
struct SamplePull {
  SparseCell<T> cell;
  int64_t ray;
  T sigma, colour[3];
};

// Section by section, front to back: A is what is still to come of the colour times its gradient.
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
  MarchInputs in{links, density, sh, levels, origin, direction, basis, length,
                 step,  near,    background, sigma_thresh, stop_thresh};
  in.settle();
  TORCH_CHECK(grad_rgb.sizes() == origin.sizes() && rgb.sizes() == origin.sizes(), "a colour for each ray is needed");
  check_devices(density, {grad_rgb, rgb});
  const Tensor pull = grad_rgb.contiguous(), colours = rgb.contiguous();
  const int64_t rays = origin.size(0), functions = basis.size(1), channels = sh.size(1), voxels = links.numel();
  Tensor grad_density = at::zeros_like(in.density), grad_sh = at::zeros_like(in.sh),
         touched = at::zeros({density.size(0)}, density.options().dtype(at::kBool));
  AT_DISPATCH_FLOATING_TYPES(origin.scalar_type(), "march_rays_backward", [&] {
    const auto field = in.field<scalar_t>();
    const auto settings = in.settings<scalar_t>();
    const scalar_t* from = in.origin.const_data_ptr<scalar_t>();
    const scalar_t* along = in.direction.const_data_ptr<scalar_t>();
    const scalar_t* functions_at = in.basis.const_data_ptr<scalar_t>();
    const scalar_t* lengths = in.length.const_data_ptr<scalar_t>();
    const scalar_t* g = pull.const_data_ptr<scalar_t>();
    const scalar_t* colour_of = colours.const_data_ptr<scalar_t>();

    std::vector<std::vector<SamplePull<scalar_t>>> samples((rays + kRaysPerTask - 1) / kRaysPerTask);
    at::parallel_for(0, samples.size(), 1, [&](int64_t begin, int64_t end) {
      RayWalk<scalar_t> walk;
      scalar_t coefficients[kMaxShChannels];
      for (int64_t task = begin; task < end; ++task) {
        const int64_t last = std::min(rays, (task + 1) * kRaysPerTask);
        for (int64_t ray = task * kRaysPerTask; ray < last; ++ray) {
          const scalar_t* functions_of = functions_at + ray * functions;
          scalar_t optical = 0, light = 1, rest = dot(colour_of + 3 * ray, g + 3 * ray, 3);
          const scalar_t delta = lengths[ray] * settings.step;
          walk.begin(field, from + 3 * ray, along + 3 * ray, lengths[ray], settings);
          while (walk.next(field)) {
            const scalar_t part = walk.sigma * delta, weight = light * -std::expm1(-part);
            gather_sh(field, walk, coefficients);
            SamplePull<scalar_t> sample;
            sample.cell = walk.cell;
            sample.ray = ray;
            scalar_t value_pull = 0;
            for (int colour = 0; colour < 3; ++colour) {
              const scalar_t value = dot(coefficients + colour * functions, functions_of, functions) + scalar_t(0.5);
              value_pull += greatest(value, scalar_t(0)) * g[3 * ray + colour];
              sample.colour[colour] = value >= 0 ? weight * g[3 * ray + colour] : scalar_t(0);
            }
            rest -= weight * value_pull;
            optical += part;
            light = std::exp(-optical);
            sample.sigma = delta * (value_pull * light - rest) +
                scalar_t(sparsity) * 4 * walk.sigma / (1 + 2 * walk.sigma * walk.sigma);
            samples[task].push_back(sample);
            if (light < settings.stop_thresh) {
              break;
            }
          }
        }
      }
    });

    // Voxel by voxel in the order of rays, whatever the number of threads.
    scalar_t* density_out = grad_density.mutable_data_ptr<scalar_t>();
    scalar_t* sh_out = grad_sh.mutable_data_ptr<scalar_t>();
    bool* mark = touched.mutable_data_ptr<bool>();
    at::parallel_for(0, voxels, std::max<int64_t>((voxels + 7) / 8, 1024), [&](int64_t begin, int64_t end) {
      scalar_t row_pull[kMaxShChannels];
      for (const auto& task : samples) {
        for (const auto& sample : task) {
          if (sample.cell.corner(7) < begin || sample.cell.voxel >= end) {
            continue;
          }
          const scalar_t* functions_of = functions_at + sample.ray * functions;
          for (int colour = 0; colour < 3; ++colour) {
            for (int64_t i = 0; i < functions; ++i) {
              row_pull[colour * functions + i] = sample.colour[colour] * functions_of[i];
            }
          }
          for (int k = 0; k < 8; ++k) {
            const int64_t corner = sample.cell.corner(k);
            if (corner < begin || corner >= end || field.links[corner] < 0) {
              continue;
            }
            const int64_t row = field.links[corner];
            const scalar_t weight = sample.cell.weight(k);
            density_out[row] += weight * sample.sigma;
            add_scaled(sh_out + row * channels, row_pull, weight, channels);
            mark[row] = true;
          }
        }
      }
    });
  });
  return {grad_density, grad_sh, touched};
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
  const Tensor rows_at = links.contiguous(), values = table.contiguous(), numbers = cells.contiguous();
  const int64_t size[3] = {links.size(0), links.size(1), links.size(2)}, channels = table.size(1);
  AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "sparse_total_variation_add_grad_", [&] {
    const scalar_t* data = values.const_data_ptr<scalar_t>();
    scalar_t* out = grad.mutable_data_ptr<scalar_t>();
    bool* mark = touched.mutable_data_ptr<bool>();
    const scalar_t share = scalar_t(weight) / scalar_t(cells.size(0));
    const scalar_t scale[3] = {
        scalar_t(size[0]) / 256, scalar_t(size[1]) / 256, scalar_t(size[2]) / 256};
    // Cells share voxels with each other: one thread, since most of them are empty.
    VariationCell cell;
    scalar_t pull[4];
    for (int64_t i = 0; i < numbers.size(0); ++i) {
      cell.set(
          rows_at.const_data_ptr<int32_t>(), size, numbers.const_data_ptr<int64_t>()[i], level_edges, legacy);
      if (!cell.used) {
        continue;
      }
      for (int64_t channel = 0; channel < channels; ++channel) {
        cell.pulls(data, channels, channel, level_edges, share, scale, pull);
        for (int k = 0; k < 4; ++k) {
          if (cell.rows[k] >= 0 && pull[k] != 0) {
            out[cell.rows[k] * channels + channel] += pull[k];
            mark[cell.rows[k]] = true;
          }
        }
      }
    }
  });
}

// Marks what is within `times` of a marked byte of a line.
void dilate_line(const uint8_t* in, uint8_t* out, int64_t count, int64_t times) {
  int64_t last = -times - 1;
  for (int64_t i = 0; i < count; ++i) {
    last = in[i] ? i : last;
    out[i] = i - last <= times;
  }
  int64_t next = count + times;
  for (int64_t i = count - 1; i >= 0; --i) {
    next = in[i] ? i : next;
    out[i] |= next - i <= times;
  }
}

// out[i] = any of in[i + d], |d| <= times, for `count` rows of `width` bytes.
void dilate_rows(const uint8_t* in, uint8_t* out, int64_t i, int64_t count, int64_t width, int64_t times) {
  uint8_t* row = out + i * width;
  const int64_t first = std::max<int64_t>(0, i - times), last = std::min(count - 1, i + times);
  std::memcpy(row, in + first * width, width);
  for (int64_t other = first + 1; other <= last; ++other) {
    const uint8_t* marks = in + other * width;
#pragma omp simd
    for (int64_t j = 0; j < width; ++j) {
      row[j] |= marks[j];
    }
  }
}

// A box, axis after axis: lines along z and rows along y within a plane, then planes along x.
Tensor dilate_mask(const Tensor& mask, int64_t times) {
  check_mask(mask, times);
  const Tensor marks = mask.contiguous();
  Tensor planes = at::empty_like(marks), result = at::empty_like(marks);
  const int64_t size_x = mask.size(0), size_y = mask.size(1), size_z = mask.size(2), plane = size_y * size_z;
  if (mask.numel() == 0) {
    return result;
  }
  const uint8_t* in = reinterpret_cast<const uint8_t*>(marks.const_data_ptr<bool>());
  uint8_t* middle = reinterpret_cast<uint8_t*>(planes.mutable_data_ptr<bool>());
  uint8_t* out = reinterpret_cast<uint8_t*>(result.mutable_data_ptr<bool>());
  at::parallel_for(0, size_x, grain(plane * 4), [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> lines(plane);
    for (int64_t x = begin; x < end; ++x) {
      for (int64_t y = 0; y < size_y; ++y) {
        dilate_line(in + x * plane + y * size_z, lines.data() + y * size_z, size_z, times);
      }
      for (int64_t y = 0; y < size_y; ++y) {
        dilate_rows(lines.data(), middle + x * plane, y, size_y, size_z, times);
      }
    }
  });
  at::parallel_for(0, size_x, grain(plane * 2), [&](int64_t begin, int64_t end) {
    for (int64_t x = begin; x < end; ++x) {
      dilate_rows(middle, out, x, size_x, plane, times);
    }
  });
  return result;
}

PERCEPTION_CPU_KERNELS(m) {
  m.impl("march_rays", march_rays);
  m.impl("march_rays_backward", march_rays_backward);
  m.impl("sparse_total_variation_add_grad_", sparse_total_variation_add_grad_);
  m.impl("dilate_mask", dilate_mask);
}

} // namespace
} // namespace perception
