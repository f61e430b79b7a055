#include "../voxels.h"

#include "platform.h"

namespace perception {
namespace {

// A warp per ray looks at 32 samples at a time. Without `points` it only counts those that stay; with them it writes
// those, side by side. Bound: 28 bytes per sample that stays, and a byte of the mask per sample that is looked at.
template <typename T>
__global__ void sample_kernel(
    const T* __restrict__ start,
    const T* __restrict__ unit,
    const int64_t* __restrict__ count,
    RaySampler<T> sampler,
    int64_t rays,
    const int64_t* __restrict__ end_of_ray,
    int64_t* __restrict__ kept,
    T* __restrict__ points,
    int64_t* __restrict__ ray_id,
    int64_t* __restrict__ step_id) {
  const int lane = threadIdx.x % 32;
  const int64_t warps = int64_t(gridDim.x) * (blockDim.x / 32);
  for (int64_t ray = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; ray < rays; ray += warps) {
    int64_t slot = points == nullptr ? 0 : end_of_ray[ray] - kept[ray];
    for (int64_t first = 0; first < count[ray]; first += 32) {
      const int64_t step = first + lane;
      T point[3];
      const bool stays = step < count[ray] && sampler.sample(start + 3 * ray, unit + 3 * ray, step, point);
      const unsigned votes = __ballot_sync(kWholeWarp, stays);
      if (stays && points != nullptr) {
        const int64_t place = slot + __popc(votes & ((1u << lane) - 1));
        for (int axis = 0; axis < 3; ++axis) {
          points[3 * place + axis] = point[axis];
        }
        ray_id[place] = ray;
        step_id[place] = step;
      }
      slot += __popc(votes);
    }
    if (points == nullptr && lane == 0) {
      kept[ray] = slot;
    }
  }
}

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
  PERCEPTION_GUARD(start);
  const RayInputs inputs(start, unit, count, xyz_min, xyz_max, mask, mask_scale, mask_shift, stepdist);
  const int64_t rays = start.size(0);
  Tensor kept = at::zeros({rays}, inputs.count.options()), points, ray_id, step_id;
  AT_DISPATCH_FLOATING_TYPES(start.scalar_type(), "sample_rays", [&] {
    const RaySampler<scalar_t> sampler = inputs.sampler<scalar_t>();
    const scalar_t* from = inputs.start.const_data_ptr<scalar_t>();
    const scalar_t* along = inputs.unit.const_data_ptr<scalar_t>();
    const int64_t* steps = inputs.count.const_data_ptr<int64_t>();
    int64_t* number = kept.mutable_data_ptr<int64_t>();
    const unsigned blocks = blocks_for(rays, 4);
    PERCEPTION_LAUNCH_TOGETHER(
        sample_kernel<scalar_t>, blocks, 128, 0, from, along, steps, sampler, rays, nullptr, number, nullptr, nullptr,
        nullptr);
    const Tensor ends = at::cumsum(kept, 0);
    const int64_t total = rays > 0 ? ends[rays - 1].item<int64_t>() : 0;
    points = at::empty({total, 3}, start.options());
    ray_id = at::empty({total}, inputs.count.options());
    step_id = at::empty({total}, inputs.count.options());
    if (total > 0) {
      PERCEPTION_LAUNCH_TOGETHER(
          sample_kernel<scalar_t>, blocks, 128, 0, from, along, steps, sampler, rays, ends.const_data_ptr<int64_t>(),
          number, points.mutable_data_ptr<scalar_t>(), ray_id.mutable_data_ptr<int64_t>(),
          step_id.mutable_data_ptr<int64_t>());
    }
  });
  return {points, ray_id, step_id};
}

// A warp per ray loads 32 samples at a time, side by side, and multiplies them in order: the same product as one after
// the other. Bound: 12 bytes per sample.
template <typename T>
__global__ void weights_kernel(
    const T* __restrict__ alpha,
    const int64_t* __restrict__ offsets,
    int64_t rays,
    T min_transmittance,
    T* __restrict__ weights,
    T* __restrict__ transmittance,
    T* __restrict__ last) {
  const int lane = threadIdx.x % 32;
  const int64_t warps = int64_t(gridDim.x) * (blockDim.x / 32);
  for (int64_t ray = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; ray < rays; ray += warps) {
    const int64_t end = offsets[ray + 1];
    T light = 1;
    for (int64_t first = offsets[ray]; first < end; first += 32) {
      const int64_t i = first + lane;
      const T a = i < end ? alpha[i] : T(0);
      T before = 0; // 0: behind the end of the ray
      for (int other = 0; other < 32; ++other) {
        const T its = __shfl_sync(kWholeWarp, a, other);
        if (light >= min_transmittance) {
          before = lane == other ? light : before;
          light *= 1 - its;
        }
      }
      if (i < end) {
        transmittance[i] = before;
        weights[i] = before * a;
      }
    }
    if (lane == 0) {
      last[ray] = light;
    }
  }
}

template <typename T>
__global__ void weights_backward_kernel(
    const T* __restrict__ grad_weights,
    const T* __restrict__ grad_last,
    const T* __restrict__ alpha,
    const T* __restrict__ weights,
    const T* __restrict__ transmittance,
    const T* __restrict__ last,
    const int64_t* __restrict__ offsets,
    int64_t rays,
    T min_transmittance,
    T* __restrict__ grad) {
  const int lane = threadIdx.x % 32;
  const int64_t warps = int64_t(gridDim.x) * (blockDim.x / 32);
  for (int64_t ray = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; ray < rays; ray += warps) {
    const int64_t begin = offsets[ray], end = offsets[ray + 1];
    T behind = grad_last[ray] * last[ray];
    for (int64_t first = begin + (end - begin + 31) / 32 * 32 - 32; first >= begin; first -= 32) {
      const int64_t i = first + lane;
      const T pull = i < end ? grad_weights[i] * weights[i] : T(0);
      T mine = 0;
      for (int other = 31; other >= 0; --other) {
        const T its = __shfl_sync(kWholeWarp, pull, other);
        mine = lane == other ? behind : mine;
        behind += its;
      }
      if (i < end) {
        const bool seen = transmittance[i] >= min_transmittance;
        grad[i] = seen ? grad_weights[i] * transmittance[i] - mine / (1 - alpha[i] + T(1e-10)) : T(0);
      }
    }
  }
}

// The values of offsets are trusted here: looking at them would wait for the device.
void check_offsets(const Tensor& offsets) {
  TORCH_CHECK(
      offsets.scalar_type() == at::kLong && offsets.is_contiguous() && offsets.dim() == 1 && offsets.size(0) > 0,
      "offsets must be a contiguous int64 vector that begins with 0");
}

std::tuple<Tensor, Tensor, Tensor> alphas_to_weights(
    const Tensor& alpha, const Tensor& offsets, double min_transmittance) {
  check_offsets(offsets);
  PERCEPTION_GUARD(alpha);
  const Tensor alphas = alpha.contiguous();
  const int64_t rays = offsets.size(0) - 1;
  check_devices(alpha, {offsets});
  // Samples of no ray have no weight.
  Tensor weights = at::zeros_like(alphas), transmittance = at::zeros_like(alphas),
         last = at::empty({rays}, alphas.options());
  AT_DISPATCH_FLOATING_TYPES(alphas.scalar_type(), "alphas_to_weights", [&] {
    PERCEPTION_LAUNCH_TOGETHER(
        weights_kernel<scalar_t>, blocks_for(rays, 4), 128, 0, alphas.const_data_ptr<scalar_t>(),
        offsets.const_data_ptr<int64_t>(), rays, scalar_t(min_transmittance), weights.mutable_data_ptr<scalar_t>(),
        transmittance.mutable_data_ptr<scalar_t>(), last.mutable_data_ptr<scalar_t>());
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
  check_offsets(offsets);
  PERCEPTION_GUARD(alpha);
  const Tensor alphas = alpha.contiguous(), w = weights.contiguous(), t = transmittance.contiguous(),
               pull = grad_weights.contiguous(), pull_last = grad_last.contiguous(), ends = last.contiguous();
  const int64_t rays = offsets.size(0) - 1;
  Tensor grad = at::zeros_like(alphas);
  AT_DISPATCH_FLOATING_TYPES(alphas.scalar_type(), "alphas_to_weights_backward", [&] {
    PERCEPTION_LAUNCH_TOGETHER(
        weights_backward_kernel<scalar_t>, blocks_for(rays, 4), 128, 0, pull.const_data_ptr<scalar_t>(),
        pull_last.const_data_ptr<scalar_t>(), alphas.const_data_ptr<scalar_t>(), w.const_data_ptr<scalar_t>(),
        t.const_data_ptr<scalar_t>(), ends.const_data_ptr<scalar_t>(), offsets.const_data_ptr<int64_t>(), rays,
        scalar_t(min_transmittance), grad.mutable_data_ptr<scalar_t>());
  });
  return grad;
}

PERCEPTION_CUDA_KERNELS(m) {
  m.impl("sample_rays", sample_rays);
  m.impl("alphas_to_weights", alphas_to_weights);
  m.impl("alphas_to_weights_backward", alphas_to_weights_backward);
}

} // namespace
} // namespace perception
