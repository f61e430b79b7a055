#include "../voxels.h"

#include "common.h"

namespace perception {
namespace {

// Twice over the samples: to count those that stay, and to write them. `count`: samples of each ray, int64.
std::tuple<Tensor, Tensor, Tensor> sample_rays(
    const Tensor& start,
    const Tensor& unit,
    const Tensor& count,
    const Tensor& xyz_min,
    const Tensor& xyz_max,
    const std::optional<Tensor>& mask,
    const std::optional<Tensor>& mask_scale,
    const std::optional<Tensor>& mask_shift,
    double stepdist) {
  const RayInputs inputs(start, unit, count, xyz_min, xyz_max, mask, mask_scale, mask_shift, stepdist);
  const int64_t rays = start.size(0);
  Tensor points, ray_id, step_id;
  AT_DISPATCH_FLOATING_TYPES(start.scalar_type(), "sample_rays", [&] {
    const RaySampler<scalar_t> sampler = inputs.sampler<scalar_t>();
    const scalar_t* from = inputs.start.const_data_ptr<scalar_t>();
    const scalar_t* along = inputs.unit.const_data_ptr<scalar_t>();
    const int64_t* steps = inputs.count.const_data_ptr<int64_t>();

    std::vector<int64_t> first(rays + 1, 0);
    at::parallel_for(0, rays, grain(2000), [&](int64_t begin, int64_t end) {
      scalar_t point[3];
      for (int64_t ray = begin; ray < end; ++ray) {
        for (int64_t step = 0; step < steps[ray]; ++step) {
          first[ray + 1] += sampler.sample(from + 3 * ray, along + 3 * ray, step, point);
        }
      }
    });
    for (int64_t ray = 0; ray < rays; ++ray) {
      first[ray + 1] += first[ray];
    }
    points = at::empty({first[rays], 3}, start.options());
    ray_id = at::empty({first[rays]}, inputs.count.options());
    step_id = at::empty({first[rays]}, inputs.count.options());
    scalar_t* point_out = points.mutable_data_ptr<scalar_t>();
    int64_t* ray_out = ray_id.mutable_data_ptr<int64_t>();
    int64_t* step_out = step_id.mutable_data_ptr<int64_t>();
    at::parallel_for(0, rays, grain(2000), [&](int64_t begin, int64_t end) {
      scalar_t point[3];
      for (int64_t ray = begin; ray < end; ++ray) {
        int64_t slot = first[ray];
        for (int64_t step = 0; slot < first[ray + 1]; ++step) {
          if (sampler.sample(from + 3 * ray, along + 3 * ray, step, point)) {
            std::copy(point, point + 3, point_out + 3 * slot);
            ray_out[slot] = ray;
            step_out[slot++] = step;
          }
        }
      }
    });
  });
  return {points, ray_id, step_id};
}

const int64_t* check_offsets(const Tensor& offsets, const Tensor& alpha) {
  TORCH_CHECK(
      offsets.scalar_type() == at::kLong && offsets.is_contiguous() && offsets.dim() == 1 && offsets.size(0) > 0,
      "offsets must be a contiguous int64 vector that begins with 0");
  const int64_t* data = offsets.const_data_ptr<int64_t>();
  for (int64_t ray = 0; ray + 1 < offsets.size(0); ++ray) {
    TORCH_CHECK(data[ray] <= data[ray + 1], "offsets must not fall");
  }
  TORCH_CHECK(
      data[0] == 0 && data[offsets.size(0) - 1] == alpha.size(0), "offsets must run from 0 to the number of samples");
  return data;
}

std::tuple<Tensor, Tensor, Tensor> alphas_to_weights(
    const Tensor& alpha, const Tensor& offsets, double min_transmittance) {
  const Tensor alphas = alpha.contiguous();
  const int64_t* first = check_offsets(offsets, alpha);
  const int64_t rays = offsets.size(0) - 1;
  Tensor weights = at::zeros_like(alphas), transmittance = at::zeros_like(alphas),
         last = at::ones({rays}, alpha.options());
  AT_DISPATCH_FLOATING_TYPES(alpha.scalar_type(), "alphas_to_weights", [&] {
    const scalar_t* a = alphas.const_data_ptr<scalar_t>();
    scalar_t* w = weights.mutable_data_ptr<scalar_t>();
    scalar_t* t = transmittance.mutable_data_ptr<scalar_t>();
    scalar_t* end_of = last.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, rays, grain(200), [&](int64_t begin, int64_t end) {
      for (int64_t ray = begin; ray < end; ++ray) {
        scalar_t light = 1;
        for (int64_t i = first[ray]; i < first[ray + 1] && light >= scalar_t(min_transmittance); ++i) {
          t[i] = light;
          w[i] = light * a[i];
          light *= 1 - a[i];
        }
        end_of[ray] = light;
      }
    });
  });
  return {weights, transmittance, last};
}

Tensor alphas_to_weights_backward(
    const Tensor& grad_weights,
    const Tensor& grad_last,
    const Tensor& alpha,
    const Tensor& weights,
    const Tensor& transmittance,
    const Tensor& last,
    const Tensor& offsets,
    double min_transmittance) {
  const int64_t* first = check_offsets(offsets, alpha);
  const Tensor alphas = alpha.contiguous(), w = weights.contiguous(), t = transmittance.contiguous(),
               pull = grad_weights.contiguous(), pull_last = grad_last.contiguous(), ends = last.contiguous();
  Tensor grad = at::zeros_like(alphas);
  AT_DISPATCH_FLOATING_TYPES(alpha.scalar_type(), "alphas_to_weights_backward", [&] {
    const scalar_t* a = alphas.const_data_ptr<scalar_t>();
    const scalar_t* light = t.const_data_ptr<scalar_t>();
    const scalar_t* weight = w.const_data_ptr<scalar_t>();
    const scalar_t* g = pull.const_data_ptr<scalar_t>();
    scalar_t* out = grad.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, offsets.size(0) - 1, grain(300), [&](int64_t begin, int64_t end) {
      for (int64_t ray = begin; ray < end; ++ray) {
        // What lies behind a sample has a factor 1 - alpha of it.
        scalar_t behind = pull_last.const_data_ptr<scalar_t>()[ray] * ends.const_data_ptr<scalar_t>()[ray];
        for (int64_t i = first[ray + 1] - 1; i >= first[ray]; --i) {
          if (light[i] >= scalar_t(min_transmittance)) { // else behind the end of the ray: stored as 0
            out[i] = g[i] * light[i] - behind / (1 - a[i] + scalar_t(1e-10));
            behind += g[i] * weight[i];
          }
        }
      }
    });
  });
  return grad;
}

PERCEPTION_CPU_KERNELS(m) {
  m.impl("sample_rays", sample_rays);
  m.impl("alphas_to_weights", alphas_to_weights);
  m.impl("alphas_to_weights_backward", alphas_to_weights_backward);
}

} // namespace
} // namespace perception
