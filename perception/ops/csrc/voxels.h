// Trilinear corners in a grid of voxels (perception/ops/trilinear.py), cells of an occupancy mask, and hashed grids.
#pragma once

#include "platform.h"

namespace perception {

// The eight voxels around a position given in voxels; row -1 outside the grid.
template <typename T>
struct VoxelCorners {
  int64_t row[8];
  T weight[8];

  PERCEPTION_HD void set(const T* position, const int64_t* shape) {
    int64_t lower[3];
    T part[3];
    for (int axis = 0; axis < 3; ++axis) {
      // Far away places (and those that are not numbers) must not overflow the integers.
      T place = position[axis] != position[axis] ? T(-2) : position[axis];
      place = least(greatest(place, T(-2)), T(shape[axis] + 1));
      const T whole = std::floor(place);
      lower[axis] = static_cast<int64_t>(whole);
      part[axis] = place - whole;
    }
    for (int corner = 0; corner < 8; ++corner) {
      const int64_t x = lower[0] + (corner >> 2), y = lower[1] + ((corner >> 1) & 1), z = lower[2] + (corner & 1);
      const bool inside = x >= 0 && y >= 0 && z >= 0 && x < shape[0] && y < shape[1] && z < shape[2];
      row[corner] = inside ? (x * shape[1] + y) * shape[2] + z : -1;
      const T wx = corner >> 2 ? part[0] : 1 - part[0], wy = (corner >> 1) & 1 ? part[1] : 1 - part[1],
              wz = corner & 1 ? part[2] : 1 - part[2];
      weight[corner] = (wx * wy) * wz;
    }
  }
};

// Differences between neighbours count up to 1 in the gradient of the total variation.
template <typename T>
PERCEPTION_HD T clamp_difference(T difference) {
  return least(greatest(difference, T(-1)), T(1));
}

// product + sum with each rounded, as the reference does: a sample must fall into the same cell in both.
template <typename T>
PERCEPTION_HD T multiply_then_add(T a, T b, T c) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == 4) {
    return __fadd_rn(__fmul_rn(a, b), c);
  } else {
    return __dadd_rn(__dmul_rn(a, b), c);
  }
#else
  return a * b + c;
#endif
}

// The samples of a ray: sample k lies at start + unit * (k * stepdist).
template <typename T>
struct RaySampler {
  const T *xyz_min, *xyz_max; // (3,)
  const bool* mask; // (X, Y, Z), or null: everything is occupied
  const T *mask_scale, *mask_shift; // (3,) world units to cells
  int64_t shape[3];
  T stepdist;

  PERCEPTION_HD bool sample(const T* start, const T* unit, int64_t step, T* point) const {
    const T distance = T(step) * stepdist;
    bool inside = true;
    int64_t cell = 0;
    for (int axis = 0; axis < 3; ++axis) {
      point[axis] = multiply_then_add(unit[axis], distance, start[axis]);
      inside = inside && point[axis] >= xyz_min[axis] && point[axis] <= xyz_max[axis];
    }
    if (!inside || mask == nullptr) {
      return inside;
    }
    for (int axis = 0; axis < 3; ++axis) {
      const T place = std::round(multiply_then_add(point[axis], mask_scale[axis], mask_shift[axis]));
      if (!(place >= 0 && place < T(shape[axis]))) {
        return false;
      }
      cell = cell * shape[axis] + static_cast<int64_t>(place);
    }
    return mask[cell];
  }
};

// One level of a hashed grid in the layout of tiny-cuda-nn.
struct HashLevel {
  int64_t offset, size; // entries
  int64_t resolution;
  float scale;

  PERCEPTION_HD int64_t entry(uint32_t x, uint32_t y, uint32_t z) const {
    const uint32_t side = static_cast<uint32_t>(resolution), entries = static_cast<uint32_t>(size);
    const bool dense = resolution * resolution * resolution <= size;
    const uint32_t index = dense ? x + y * side + z * (side * side) : x ^ (y * 2654435761u) ^ (z * 805459861u);
    return offset + index % entries;
  }
};

// The eight entries around a position in [0, 1]^3, their trilinear weights, and the parts from which these come.
template <typename T>
struct HashCorners {
  int64_t entry[8];
  T part[3];

  PERCEPTION_HD void set(const T* position, const HashLevel& level) {
    uint32_t lower[3];
    for (int axis = 0; axis < 3; ++axis) {
      const T place = position[axis] * T(level.scale) + T(0.5);
      const T whole = std::floor(place);
      part[axis] = place - whole;
      lower[axis] = static_cast<uint32_t>(static_cast<int64_t>(whole));
    }
    for (int corner = 0; corner < 8; ++corner) {
      entry[corner] = level.entry(lower[0] + (corner >> 2), lower[1] + ((corner >> 1) & 1), lower[2] + (corner & 1));
    }
  }

  PERCEPTION_HD T weight(int corner) const {
    return share(corner >> 2, 0) * share((corner >> 1) & 1, 1) * share(corner & 1, 2);
  }

  // Derivative of the weight by the position along an axis, in cells.
  PERCEPTION_HD T slope(int corner, int axis) const {
    const int up[3] = {corner >> 2, (corner >> 1) & 1, corner & 1};
    T product = up[axis] ? T(1) : T(-1);
    for (int other = 0; other < 3; ++other) {
      product *= other == axis ? T(1) : share(up[other], other);
    }
    return product;
  }

  PERCEPTION_HD T share(int up, int axis) const {
    return up ? part[axis] : 1 - part[axis];
  }
};

} // namespace perception
