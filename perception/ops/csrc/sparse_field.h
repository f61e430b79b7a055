// Rays through a sparse voxel field, on the host and the device.
#pragma once

#include "inputs.h"

namespace perception {

constexpr int kMaxShChannels = 32; // three colours of at most ten basis functions: a warp holds a voxel's row

template <typename T>
struct SparseField {
  const int32_t* links;
  const T* density;
  const T* sh;
  const uint8_t* levels;
  int64_t size[3], channels;
};

template <typename T>
struct MarchSettings {
  T step, near, background, sigma_thresh, stop_thresh;
};

// The cell around a place, which is held inside the grid.
template <typename T>
struct SparseCell {
  int64_t lower[3], voxel; // its lowest corner, and that one's number in the grid
  int64_t stride[3]; // to the next voxel along each axis
  T upper[3]; // weight of that one

  PERCEPTION_HD void set(const T* position, const int64_t* size) {
    stride[0] = size[1] * size[2];
    stride[1] = size[2];
    stride[2] = 1;
    voxel = 0;
    for (int axis = 0; axis < 3; ++axis) {
      const T place = least(greatest(position[axis], T(0)), T(size[axis] - 1));
      const int64_t last = size[axis] > 1 ? size[axis] - 2 : 0;
      const int64_t floor = int64_t(place);
      lower[axis] = floor < last ? floor : last;
      upper[axis] = place - T(lower[axis]);
      voxel += lower[axis] * stride[axis];
      if (size[axis] == 1) {
        stride[axis] = 0;
      }
    }
  }
  PERCEPTION_HD int64_t corner(int k) const {
    return voxel + (k & 4 ? stride[0] : 0) + (k & 2 ? stride[1] : 0) + (k & 1 ? stride[2] : 0);
  }
  PERCEPTION_HD T weight(int k) const {
    const T x = k & 4 ? upper[0] : 1 - upper[0], y = k & 2 ? upper[1] : 1 - upper[1];
    return x * y * (k & 1 ? upper[2] : 1 - upper[2]);
  }
};

// The samples of a ray whose density is above the threshold, from near to far.
template <typename T>
struct RayWalk {
  T origin[3], direction[3], enter, step, sigma_thresh, t, sigma;
  int64_t number, count;
  SparseCell<T> cell;
  int32_t rows[8];

  PERCEPTION_HD void begin(
      const SparseField<T>& field, const T* from, const T* along, T length, const MarchSettings<T>& settings) {
    step = settings.step;
    sigma_thresh = settings.sigma_thresh;
    number = count = 0;
    enter = settings.near / length;
    T leave = T(1e30);
    for (int axis = 0; axis < 3; ++axis) {
      origin[axis] = from[axis];
      direction[axis] = along[axis];
      const T end = T(field.size[axis]) - T(0.5);
      if (along[axis] == 0) {
        if (from[axis] < T(-0.5) || from[axis] > end) {
          return;
        }
        continue;
      }
      const T a = (T(-0.5) - from[axis]) / along[axis], b = (end - from[axis]) / along[axis];
      enter = greatest(enter, least(a, b));
      leave = least(leave, greatest(a, b));
    }
    if (leave >= enter) {
      count = int64_t(std::floor((leave - enter) / step)) + 1;
    }
  }

  // Whether there is another one.
  PERCEPTION_HD bool next(const SparseField<T>& field) {
    while (number < count) {
      T place[3];
      t = enter + T(number) * step;
      for (int axis = 0; axis < 3; ++axis) {
        place[axis] = origin[axis] + t * direction[axis];
      }
      cell.set(place, field.size);
      const int level = field.levels[cell.voxel];
      if (level > 0) {
        number += steps_through(field, place, level - 1);
        continue;
      }
      ++number;
      sigma = 0;
      for (int k = 0; k < 8; ++k) {
        rows[k] = field.links[cell.corner(k)];
        if (rows[k] >= 0) {
          sigma = multiply_add(cell.weight(k), field.density[rows[k]], sigma);
        }
      }
      if (sigma > sigma_thresh) {
        return true;
      }
    }
    return false;
  }

 private:
  // Whole steps that do not leave an empty block of 2^shift cells a side; at least one.
  PERCEPTION_HD int64_t steps_through(const SparseField<T>& field, const T* place, int shift) const {
    T way = T(1e30);
    for (int axis = 0; axis < 3; ++axis) {
      const int64_t first = cell.lower[axis] >> shift << shift, after = first + (int64_t(1) << shift);
      // What lies beyond the outermost centres belongs to the outermost cells.
      if (direction[axis] > 0 && after < field.size[axis] - 1) {
        way = least(way, (T(after) - place[axis]) / direction[axis]);
      } else if (direction[axis] < 0 && first > 0) {
        way = least(way, (T(first) - place[axis]) / direction[axis]);
      }
    }
    if (way >= T(1e30)) {
      return count - number;
    }
    const int64_t steps = int64_t(way / step);
    return steps > 1 ? steps : 1;
  }
};

// Inputs of one type, held for as long as kernels read them.
struct MarchInputs {
  Tensor links, density, sh, levels, origin, direction, basis, length;
  double step, near, background, sigma_thresh, stop_thresh;

  void settle() {
    TORCH_CHECK(
        links.dim() == 3 && links.numel() > 0 && levels.sizes() == links.sizes(),
        "links and levels must have one shape (X, Y, Z)");
    TORCH_CHECK(
        links.scalar_type() == at::kInt && levels.scalar_type() == at::kByte, "links must be int32, levels uint8");
    TORCH_CHECK(
        density.dim() == 2 && density.size(1) == 1 && sh.dim() == 2 && sh.size(0) == density.size(0),
        "there must be a density and a row of coefficients for each voxel");
    TORCH_CHECK(
        origin.dim() == 2 && origin.size(1) == 3 && direction.sizes() == origin.sizes() && basis.dim() == 2 &&
            basis.size(0) == origin.size(0) && length.dim() == 1 && length.size(0) == origin.size(0),
        "rays need origins and directions (N, 3), basis functions (N, B) and lengths (N,)");
    TORCH_CHECK(
        sh.size(1) == 3 * basis.size(1) && sh.size(1) <= kMaxShChannels,
        "coefficients must be three times as many as basis functions, and at most ", kMaxShChannels);
    TORCH_CHECK(step > 0, "steps must be positive, not ", step);
    check_devices(density, {links, sh, levels, origin, direction, basis, length});
    for (Tensor* tensor : {&links, &density, &sh, &levels, &origin, &direction, &basis, &length}) {
      *tensor = tensor->contiguous();
    }
  }

  template <typename T>
  SparseField<T> field() const {
    return {
        links.const_data_ptr<int32_t>(),
        density.const_data_ptr<T>(),
        sh.const_data_ptr<T>(),
        levels.const_data_ptr<uint8_t>(),
        {links.size(0), links.size(1), links.size(2)},
        sh.size(1)};
  }
  template <typename T>
  MarchSettings<T> settings() const {
    return {T(step), T(near), T(background), T(sigma_thresh), T(stop_thresh)};
  }
};

// A cell's total variation: the rows whose values it compares, in the order +x, +y, +z, itself.
struct VariationCell {
  int32_t rows[4];
  bool used;

  PERCEPTION_HD void set(const int32_t* links, const int64_t* size, int64_t voxel, bool level_edges, bool legacy) {
    const int64_t stride[3] = {size[1] * size[2], size[2], 1};
    rows[3] = links[voxel];
    used = !(level_edges && legacy && rows[3] == 0);
    bool any = rows[3] >= 0;
    for (int axis = 0; axis < 3; ++axis) {
      const bool inside = voxel / stride[axis] % size[axis] + 1 < size[axis];
      rows[axis] = inside ? links[voxel + stride[axis]] : (legacy ? 0 : rows[3]);
      any = any || rows[axis] >= 0;
    }
    used = used && any;
  }

  // What one channel adds to the gradients of the four rows.
  template <typename T>
  PERCEPTION_HD void pulls(
      const T* table, int64_t channels, int64_t channel, bool level_edges, T weight, const T* scale, T* pull) const {
    const T own = rows[3] >= 0 ? table[rows[3] * channels + channel] : T(0);
    T square = T(1e-9);
    for (int axis = 0; axis < 3; ++axis) {
      const T other = rows[axis] >= 0 ? table[rows[axis] * channels + channel] : (level_edges ? own : T(0));
      pull[axis] = other - own;
      square = multiply_add(pull[axis], pull[axis], square);
    }
    const T factor = weight / std::sqrt(square);
    pull[3] = 0;
    for (int axis = 0; axis < 3; ++axis) {
      pull[axis] *= factor * scale[axis];
      pull[3] -= pull[axis];
    }
  }
};

inline void check_variation(
    const Tensor& links, const Tensor& table, const Tensor& grad, const Tensor& touched, const Tensor& cells) {
  TORCH_CHECK(links.dim() == 3 && links.scalar_type() == at::kInt, "links must be int32 of the shape (X, Y, Z)");
  TORCH_CHECK(table.dim() == 2 && grad.sizes() == table.sizes() && grad.is_contiguous(), "grad must be like the table");
  TORCH_CHECK(
      touched.scalar_type() == at::kBool && touched.is_contiguous() && touched.numel() == table.size(0),
      "touched must hold a bool per row");
  TORCH_CHECK(cells.dim() == 1 && cells.scalar_type() == at::kLong, "cells must be an int64 vector");
  check_devices(table, {links, grad, touched, cells});
}

inline void check_mask(const Tensor& mask, int64_t times) {
  TORCH_CHECK(mask.dim() == 3 && mask.scalar_type() == at::kBool, "mask must be bool of the shape (X, Y, Z)");
  TORCH_CHECK(times >= 0, "a mask cannot be dilated ", times, " times");
}

} // namespace perception
