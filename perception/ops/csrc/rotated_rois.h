// Where RoIAlign samples a rotated region, and the bilinear rule at the border of a map (perception/ops/_sampling.py).
#pragma once

#include "platform.h"

namespace perception {

// T: float, or double for double maps.
template <typename T>
struct RotatedRoi {
  int64_t image;
  T x, y, width, height, cos, sin, bin_width, bin_height;
  int64_t down, across; // samples per bin

  template <typename Number>
  PERCEPTION_HD RotatedRoi(
      const Number* roi,
      T scale,
      int64_t rows,
      int64_t columns,
      int64_t sampling_ratio,
      bool aligned,
      bool clockwise) {
    image = static_cast<int64_t>(roi[0]);
    const T offset = aligned ? T(0.5) : T(0);
    x = T(roi[1]) * scale - offset;
    y = T(roi[2]) * scale - offset;
    width = T(roi[3]) * scale;
    height = T(roi[4]) * scale;
    if (!aligned) {
      width = greatest(width, T(1));
      height = greatest(height, T(1));
    }
    const T angle = clockwise ? -T(roi[5]) : T(roi[5]);
    cos = std::cos(angle);
    sin = std::sin(angle);
    bin_width = width / T(columns);
    bin_height = height / T(rows);
    down = sampling_ratio > 0 ? sampling_ratio : count(bin_height);
    across = sampling_ratio > 0 ? sampling_ratio : count(bin_width);
  }

  PERCEPTION_HD static int64_t count(T size) {
    // None for sizes that are not numbers, or so large that they come from a model that has diverged.
    return size > 0 && size < T(1 << 20) ? static_cast<int64_t>(std::ceil(size)) : 0;
  }

  // Place in the map of sample (i, j) of bin (row, column).
  PERCEPTION_HD void place(int64_t row, int64_t column, int64_t i, int64_t j, T& map_y, T& map_x) const {
    const T v = (-height / 2 + T(row) * bin_height) + (T(i) + T(0.5)) * bin_height / T(down);
    const T u = (-width / 2 + T(column) * bin_width) + (T(j) + T(0.5)) * bin_width / T(across);
    map_y = v * cos - u * sin + y;
    map_x = v * sin + u * cos + x;
  }
};

// The four pixels around a place and their weights; false where the place is more than a pixel outside.
template <typename T>
struct Taps {
  int64_t pixel[4];
  T weight[4];

  PERCEPTION_HD bool set(T y, T x, int64_t height, int64_t width) {
    if (height < 1 || width < 1 || !(y >= -1 && y <= T(height) && x >= -1 && x <= T(width))) {
      return false;
    }
    y = least(greatest(y, T(0)), T(height - 1));
    x = least(greatest(x, T(0)), T(width - 1));
    const int64_t top = static_cast<int64_t>(y), left = static_cast<int64_t>(x);
    const int64_t bottom = least(top + 1, height - 1), right = least(left + 1, width - 1);
    const T fy = y - T(top), fx = x - T(left);
    pixel[0] = top * width + left;
    pixel[1] = top * width + right;
    pixel[2] = bottom * width + left;
    pixel[3] = bottom * width + right;
    weight[0] = (1 - fy) * (1 - fx);
    weight[1] = (1 - fy) * fx;
    weight[2] = fy * (1 - fx);
    weight[3] = fy * fx;
    return true;
  }
};

} // namespace perception
