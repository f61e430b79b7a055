// How operators read their inputs, on the host, for kernels of both kinds.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "checks.h"
#include "platform.h"
#include "voxels.h"

namespace perception {

// Half types are computed in float32.
inline at::ScalarType compute_type(const Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

inline Tensor as_type(const Tensor& x, at::ScalarType type) {
  return x.to(type).contiguous();
}

// CARAFE.
struct ReassemblyShape {
  int64_t batch, channels, height, width, kernel, groups, scale;

  PERCEPTION_HD int64_t taps() const {
    return kernel * kernel;
  }
  PERCEPTION_HD int64_t per_group() const {
    return channels / groups;
  }
  PERCEPTION_HD int64_t out_height() const {
    return height * scale;
  }
  PERCEPTION_HD int64_t out_width() const {
    return width * scale;
  }
};

inline ReassemblyShape read_reassembly(
    const Tensor& features, const Tensor& masks, int64_t kernel, int64_t groups, int64_t scale) {
  check_devices(features, {masks});
  TORCH_CHECK(features.dim() == 4, "features must have the shape (B, C, H, W), got ", features.sizes());
  const ReassemblyShape s{
      features.size(0), features.size(1), features.size(2), features.size(3), kernel, groups, scale};
  TORCH_CHECK(kernel % 2 == 1, "kernel_size must be odd, got ", kernel);
  TORCH_CHECK(groups > 0 && s.channels % groups == 0, groups, " groups do not divide ", s.channels, " channels");
  const std::vector<int64_t> expected{s.batch, groups * s.taps(), s.out_height(), s.out_width()};
  TORCH_CHECK(masks.sizes() == at::IntArrayRef(expected), "masks must have the shape ", expected);
  return s;
}

// Deformable attention: where the levels lie in the flattened values.
constexpr int kMaxAttentionLevels = 16;

struct AttentionLevels {
  int64_t count, length;
  int64_t height[kMaxAttentionLevels], width[kMaxAttentionLevels], start[kMaxAttentionLevels];
};

inline AttentionLevels read_levels(
    const Tensor& value, at::IntArrayRef spatial_shapes, const Tensor& locations, const Tensor& weights) {
  AttentionLevels levels{};
  levels.count = spatial_shapes.size() / 2;
  TORCH_CHECK(
      levels.count <= kMaxAttentionLevels, "at most ", kMaxAttentionLevels, " levels are supported, got ",
      levels.count);
  check_attention(value, locations, weights, levels.count);
  levels.length = value.size(1);
  int64_t start = 0;
  for (int64_t i = 0; i < levels.count; ++i) {
    levels.height[i] = spatial_shapes[2 * i];
    levels.width[i] = spatial_shapes[2 * i + 1];
    levels.start[i] = start;
    start += levels.height[i] * levels.width[i];
  }
  TORCH_CHECK(start == levels.length, "the levels hold ", start, " positions, but value has ", levels.length);
  return levels;
}

// Hashed grids.
constexpr int kMaxHashLevels = 32;

struct HashLevels {
  int64_t count;
  HashLevel level[kMaxHashLevels];
};

inline HashLevels read_hash_levels(
    const Tensor& positions,
    const Tensor& params,
    at::IntArrayRef offsets,
    at::IntArrayRef resolutions,
    at::ArrayRef<double> scales) {
  check_positions(params, positions);
  TORCH_CHECK(
      offsets.size() == resolutions.size() + 1 && scales.size() == resolutions.size(),
      "a grid of L levels has L + 1 offsets, L resolutions and L scales");
  TORCH_CHECK(params.size(0) == offsets.back(), "params must have a row per entry");
  TORCH_CHECK(resolutions.size() <= kMaxHashLevels, "at most ", kMaxHashLevels, " levels are supported");
  HashLevels levels{};
  levels.count = resolutions.size();
  for (int64_t i = 0; i < levels.count; ++i) {
    levels.level[i] = {offsets[i], offsets[i + 1] - offsets[i], resolutions[i], float(scales[i])};
    TORCH_CHECK(levels.level[i].size > 0, "level ", i, " has no entries");
  }
  return levels;
}

// Samples of rays: the inputs in one type, held for as long as a sampler reads them.
struct RayInputs {
  Tensor start, unit, count, xyz_min, xyz_max, mask, mask_scale, mask_shift;
  double stepdist;

  RayInputs(
      const Tensor& start_,
      const Tensor& unit_,
      const Tensor& count_,
      const Tensor& xyz_min_,
      const Tensor& xyz_max_,
      const std::optional<Tensor>& mask_,
      const std::optional<Tensor>& mask_scale_,
      const std::optional<Tensor>& mask_shift_,
      double stepdist_)
      : stepdist(stepdist_) {
    check_rays(start_, unit_, count_, xyz_min_, xyz_max_, mask_, mask_scale_, mask_shift_);
    const auto type = start_.scalar_type();
    start = start_.contiguous();
    unit = as_type(unit_, type);
    count = as_type(count_, at::kLong);
    xyz_min = as_type(xyz_min_, type);
    xyz_max = as_type(xyz_max_, type);
    if (mask_.has_value()) {
      mask = as_type(*mask_, at::kBool);
      mask_scale = as_type(*mask_scale_, type);
      mask_shift = as_type(*mask_shift_, type);
    }
  }

  template <typename T>
  RaySampler<T> sampler() const {
    RaySampler<T> result{};
    result.xyz_min = xyz_min.const_data_ptr<T>();
    result.xyz_max = xyz_max.const_data_ptr<T>();
    result.stepdist = stepdist;
    if (mask.defined()) {
      result.mask = mask.const_data_ptr<bool>();
      result.mask_scale = mask_scale.const_data_ptr<T>();
      result.mask_shift = mask_shift.const_data_ptr<T>();
      for (int axis = 0; axis < 3; ++axis) {
        result.shape[axis] = mask.size(axis);
      }
    }
    return result;
  }
};

} // namespace perception
