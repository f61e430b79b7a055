// Overlap of rotated boxes: the integral of perception/ops/polygons.py, one pair at a time, in double precision.
#pragma once

#include "platform.h"

namespace perception {

constexpr double kSmallestArea = 1e-14; // square pixels; smaller boxes overlap nothing, as in mmcv
constexpr double kEpsilon = 2.220446049250313e-16;

struct RotatedBox {
  double x, y, half_width, half_height, cos, sin;
  double reach_x, reach_y; // half the size of the upright box around it

  PERCEPTION_HD double area() const {
    return 4 * half_width * half_height;
  }
};

template <typename T>
PERCEPTION_HD RotatedBox read_box(const T* numbers, bool clockwise) {
  RotatedBox box;
  box.x = numbers[0];
  box.y = numbers[1];
  box.half_width = numbers[2] / 2.0;
  box.half_height = numbers[3] / 2.0;
  const double angle = clockwise ? double(numbers[4]) : -double(numbers[4]);
  box.cos = cos(angle);
  box.sin = sin(angle);
  box.reach_x = fabs(box.half_width * box.cos) + fabs(box.half_height * box.sin);
  box.reach_y = fabs(box.half_width * box.sin) + fabs(box.half_height * box.cos);
  return box;
}

// False for most pairs, at the cost of four comparisons; false if any number is not finite.
PERCEPTION_HD bool may_overlap(const RotatedBox& a, const RotatedBox& b) {
  return fabs(a.x - b.x) <= a.reach_x + b.reach_x && fabs(a.y - b.y) <= a.reach_y + b.reach_y;
}

PERCEPTION_HD double clamp_to(double value, double bound) {
  return least(greatest(value, -bound), bound);
}

// Integral of x dy along an edge, with x and y clamped to the rectangle of the given half size.
PERCEPTION_HD double clamped_edge(double x0, double y0, double x1, double y1, double half_width, double half_height) {
  const double dx = x1 - x0, dy = y1 - y0;
  const double y_low = clamp_to(y0, half_height), y_high = clamp_to(y0 + dy, half_height);
  const double slope = fabs(dy) <= kEpsilon * half_height ? 0 : dx / dy;
  const double xa = x0 + slope * (y_low - y0), xb = x0 + slope * (y_high - y0);
  const double left = least(xa, xb), right = greatest(xa, xb), run = right - left;
  double below = 0, above = 0;
  if (run > kEpsilon * half_width) {
    below = least(greatest(-half_width - left, 0.0), run) / run;
    above = least(greatest(right - half_width, 0.0), run) / run;
  }
  const double middle = (clamp_to(left, half_width) + clamp_to(right, half_width)) / 2;
  return (y_high - y_low) * ((above - below) * half_width + (1 - above - below) * middle);
}

PERCEPTION_HD double rotated_overlap(const RotatedBox& a, const RotatedBox& b, bool iof) {
  const double area_a = a.area(), area_b = b.area();
  if (area_a < kSmallestArea || area_b < kSmallestArea || !may_overlap(a, b)) {
    return 0;
  }
  // Corners of a in the frame of b, in which b is upright and centred: turn by the difference of the angles.
  const double cos = a.cos * b.cos + a.sin * b.sin, sin = a.sin * b.cos - a.cos * b.sin;
  const double dx = a.x - b.x, dy = a.y - b.y;
  const double x = dx * b.cos + dy * b.sin, y = dy * b.cos - dx * b.sin;
  const double ux = a.half_width * cos, uy = a.half_width * sin, vx = -a.half_height * sin, vy = a.half_height * cos;
  const double corner_x[4] = {x - ux - vx, x + ux - vx, x + ux + vx, x - ux + vx};
  const double corner_y[4] = {y - uy - vy, y + uy - vy, y + uy + vy, y - uy + vy};
  double sum = 0;
  for (int i = 0; i < 4; ++i) {
    const int next = (i + 1) & 3;
    sum += clamped_edge(corner_x[i], corner_y[i], corner_x[next], corner_y[next], b.half_width, b.half_height);
  }
  const double shared = fabs(sum);
  return shared / (iof ? area_a : area_a + area_b - shared);
}

} // namespace perception
