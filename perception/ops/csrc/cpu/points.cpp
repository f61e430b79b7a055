#include "common.h"

namespace perception {
namespace {

constexpr int64_t kBlock = 64; // distances computed before any is looked at, so that they vectorise

// Coordinates of one cloud (N, 3) as three arrays.
template <typename T>
struct Cloud {
  std::vector<T> x, y, z;

  Cloud(const T* points, int64_t count) : x(count), y(count), z(count) {
    for (int64_t i = 0; i < count; ++i) {
      x[i] = points[3 * i];
      y[i] = points[3 * i + 1];
      z[i] = points[3 * i + 2];
    }
  }

  // Squared distances of points [start, start + number) to a place.
  void distances(const T* place, int64_t start, int64_t number, T* out) const {
    const T px = place[0], py = place[1], pz = place[2];
    const T *xs = x.data() + start, *ys = y.data() + start, *zs = z.data() + start;
#pragma omp simd
    for (int64_t i = 0; i < number; ++i) {
      out[i] = squared_distance(px - xs[i], py - ys[i], pz - zs[i]);
    }
  }
};

template <typename T>
bool any_below(const T* values, T bound, int64_t count) {
  int found = 0;
#pragma omp simd reduction(| : found)
  for (int64_t i = 0; i < count; ++i) {
    found |= values[i] < bound;
  }
  return found;
}

template <typename T>
bool any_equal(const T* values, T other, int64_t count) {
  int found = 0;
#pragma omp simd reduction(| : found)
  for (int64_t i = 0; i < count; ++i) {
    found |= values[i] == other;
  }
  return found;
}

template <typename T>
void sample_cloud(const T* points, int64_t count, int64_t number, bool skip_near_origin, int64_t* taken) {
  const Cloud<T> cloud(points, count);
  const T *xs = cloud.x.data(), *ys = cloud.y.data(), *zs = cloud.z.data();
  std::vector<T> nearest(count, std::numeric_limits<T>::infinity());
  if (skip_near_origin) {
    for (int64_t i = 0; i < count; ++i) {
      if (squared_distance(xs[i], ys[i], zs[i]) <= T(1e-3)) {
        nearest[i] = -1; // stays below every distance
      }
    }
  }
  T* near = nearest.data();
  int64_t last = 0;
  taken[0] = 0;
  for (int64_t step = 1; step < number; ++step) {
    const T px = xs[last], py = ys[last], pz = zs[last];
    T furthest = -1;
#pragma omp simd reduction(max : furthest)
    for (int64_t i = 0; i < count; ++i) {
      const T distance = squared_distance(xs[i] - px, ys[i] - py, zs[i] - pz);
      const T smaller = near[i] < distance ? near[i] : distance;
      near[i] = smaller;
      furthest = furthest > smaller ? furthest : smaller;
    }
    // Of equally far points the first.
    last = 0;
    for (int64_t start = 0; start < count; start += kBlock) {
      const int64_t end = std::min(start + kBlock, count);
      if (any_equal(near + start, furthest, end - start)) {
        last = std::find(near + start, near + end, furthest) - near;
        break;
      }
    }
    taken[step] = last;
  }
}

Tensor furthest_point_sample(const Tensor& points, int64_t num_points, bool skip_near_origin) {
  check_clouds(points, points);
  const int64_t batch = points.size(0), count = points.size(1);
  TORCH_CHECK(count > 0 || num_points == 0 || batch == 0, "cannot sample from a cloud without points");
  Tensor taken = at::zeros({batch, num_points}, points.options().dtype(at::kLong));
  if (num_points == 0) {
    return taken;
  }
  const Tensor clouds = points.contiguous();
  int64_t* out = taken.mutable_data_ptr<int64_t>();
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "furthest_point_sample", [&] {
    const scalar_t* data = clouds.const_data_ptr<scalar_t>();
    at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        sample_cloud(data + b * count * 3, count, num_points, skip_near_origin, out + b * num_points);
      }
    });
  });
  return taken;
}

template <typename T, typename Visit>
void for_centres(const Tensor& points, const Tensor& centres, const Visit& visit) {
  const int64_t batch = points.size(0), count = points.size(1), number = centres.size(1);
  const Tensor sources = points.contiguous(), targets = centres.contiguous();
  for (int64_t b = 0; b < batch; ++b) {
    const Cloud<T> cloud(sources.const_data_ptr<T>() + b * count * 3, count);
    const T* places = targets.const_data_ptr<T>() + b * number * 3;
    at::parallel_for(0, number, grain(2 * count), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        visit(cloud, count, places + 3 * i, b * number + i);
      }
    });
  }
}

Tensor ball_query(
    const Tensor& points, const Tensor& centres, double min_square, double max_square, int64_t num_samples) {
  check_clouds(points, centres);
  Tensor found = at::full({points.size(0), centres.size(1), num_samples}, -1, points.options().dtype(at::kLong));
  int64_t* out = found.mutable_data_ptr<int64_t>();
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "ball_query", [&] {
    const scalar_t low = min_square, high = max_square;
    const auto visit = [&](const Cloud<scalar_t>& cloud, int64_t count, const scalar_t* place, int64_t row) {
      scalar_t distance[kBlock];
      int64_t number = 0;
      int64_t* list = out + row * num_samples;
      for (int64_t start = 0; start < count && number < num_samples; start += kBlock) {
        const int64_t size = std::min(kBlock, count - start);
        cloud.distances(place, start, size, distance);
        for (int64_t i = 0; i < size && number < num_samples; ++i) {
          if (distance[i] == 0 || (distance[i] >= low && distance[i] < high)) {
            list[number++] = start + i;
          }
        }
      }
      for (int64_t i = number; number > 0 && i < num_samples; ++i) {
        list[i] = list[0];
      }
    };
    for_centres<scalar_t>(points, centres, visit);
  });
  return found;
}

std::tuple<Tensor, Tensor> knn(const Tensor& points, const Tensor& centres, int64_t k) {
  check_clouds(points, centres);
  const int64_t batch = points.size(0), number = centres.size(1);
  Tensor distances = at::full({batch, number, k}, std::numeric_limits<double>::infinity(), points.options());
  Tensor indices = at::zeros({batch, number, k}, points.options().dtype(at::kLong));
  if (k == 0) {
    return {distances, indices};
  }
  int64_t* index = indices.mutable_data_ptr<int64_t>();
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "knn", [&] {
    scalar_t* best = distances.mutable_data_ptr<scalar_t>();
    const auto visit = [&](const Cloud<scalar_t>& cloud, int64_t count, const scalar_t* place, int64_t row) {
      scalar_t distance[kBlock];
      scalar_t* near = best + row * k;
      int64_t* which = index + row * k;
      for (int64_t start = 0; start < count; start += kBlock) {
        const int64_t size = std::min(kBlock, count - start);
        cloud.distances(place, start, size, distance);
        if (!any_below(distance, near[k - 1], size)) {
          continue;
        }
        for (int64_t i = 0; i < size; ++i) {
          if (!(distance[i] < near[k - 1])) {
            continue;
          }
          int64_t slot = k - 1;
          for (; slot > 0 && distance[i] < near[slot - 1]; --slot) {
            near[slot] = near[slot - 1];
            which[slot] = which[slot - 1];
          }
          near[slot] = distance[i];
          which[slot] = start + i;
        }
      }
    };
    for_centres<scalar_t>(points, centres, visit);
  });
  return {distances, indices};
}

std::tuple<Tensor, Tensor> three_nn(const Tensor& targets, const Tensor& sources) {
  return knn(sources, targets, 3);
}

PERCEPTION_CPU_KERNELS(m) {
  m.impl("furthest_point_sample", furthest_point_sample);
  m.impl("ball_query", ball_query);
  m.impl("knn", knn);
  m.impl("three_nn", three_nn);
}

} // namespace
} // namespace perception
