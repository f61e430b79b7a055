// Bilinear corners of deformable attention: a location (0, 0) is the outer corner of the first pixel, and pixels outside
// the map count as zero.
#pragma once

#include "platform.h"

namespace perception {

template <typename T>
struct Corners {
  int64_t pixel[4]; // -1 outside
  T weight[4];
  T fx, fy;

  PERCEPTION_HD bool set(T x, T y, int64_t height, int64_t width) {
    // Places whose every corner is outside; also those that are not numbers.
    if (!(y > -1 && x > -1 && y < T(height) && x < T(width))) {
      return false;
    }
    const T top = std::floor(y), left = std::floor(x);
    fy = y - top;
    fx = x - left;
    const int64_t row = static_cast<int64_t>(top), column = static_cast<int64_t>(left);
    for (int k = 0; k < 4; ++k) {
      const int64_t r = row + k / 2, c = column + k % 2;
      pixel[k] = r >= 0 && r < height && c >= 0 && c < width ? r * width + c : -1;
      weight[k] = (k / 2 ? fy : 1 - fy) * (k % 2 ? fx : 1 - fx);
    }
    return true;
  }
};

} // namespace perception
