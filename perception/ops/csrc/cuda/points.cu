#include "platform.h"

namespace perception {
namespace {

constexpr int kMostThreads = 512; // of a block that samples a cloud

// A block per cloud, one step after the other. Bound: each step reads the cloud and its distances (16 N bytes, from L2).
template <typename T>
__global__ void sample_kernel(
    const T* __restrict__ points,
    int64_t count,
    int64_t number,
    bool skip_near_origin,
    T* __restrict__ nearest,
    int64_t* __restrict__ taken) {
  PERCEPTION_SHARED(T, far_of_warp); // (32,) and then as many indices
  int64_t* which_of_warp = reinterpret_cast<int64_t*>(far_of_warp + 32);
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, warps = blockDim.x / 32;
  points += int64_t(blockIdx.x) * count * 3;
  nearest += int64_t(blockIdx.x) * count;
  taken += int64_t(blockIdx.x) * number;
  for (int64_t i = thread; i < count; i += blockDim.x) {
    const bool skipped = skip_near_origin &&
        squared_distance(points[3 * i], points[3 * i + 1], points[3 * i + 2]) <= T(1e-3);
    nearest[i] = skipped ? T(-1) : std::numeric_limits<T>::infinity();
  }
  int64_t last = 0;
  if (thread == 0) {
    taken[0] = 0;
  }
  for (int64_t step = 1; step < number; ++step) {
    const T px = points[3 * last], py = points[3 * last + 1], pz = points[3 * last + 2];
    T far = -2;
    int64_t which = 0;
    for (int64_t i = thread; i < count; i += blockDim.x) {
      const T distance = squared_distance(points[3 * i] - px, points[3 * i + 1] - py, points[3 * i + 2] - pz);
      const T smaller = distance < nearest[i] ? distance : nearest[i];
      nearest[i] = smaller;
      if (smaller > far) { // the first of equals, because i rises
        far = smaller;
        which = i;
      }
    }
    // Across the warp, then across warps: the furthest, of equally far ones the lowest index.
    for (int by = 16; by > 0; by /= 2) {
      const T other = __shfl_xor_sync(kWholeWarp, far, by);
      const int64_t index = __shfl_xor_sync(kWholeWarp, which, by);
      if (other > far || (other == far && index < which)) {
        far = other;
        which = index;
      }
    }
    if (lane == 0) {
      far_of_warp[warp] = far;
      which_of_warp[warp] = which;
    }
    __syncthreads();
    far = far_of_warp[0];
    which = which_of_warp[0];
    for (int other = 1; other < warps; ++other) {
      if (far_of_warp[other] > far || (far_of_warp[other] == far && which_of_warp[other] < which)) {
        far = far_of_warp[other];
        which = which_of_warp[other];
      }
    }
    __syncthreads();
    last = which;
    if (thread == 0) {
      taken[step] = last;
    }
  }
}

Tensor furthest_point_sample(const Tensor& points, int64_t num_points, bool skip_near_origin) {
  check_clouds(points, points);
  PERCEPTION_GUARD(points);
  const int64_t batch = points.size(0), count = points.size(1);
  TORCH_CHECK(count > 0 || num_points == 0 || batch == 0, "cannot sample from a cloud without points");
  Tensor taken = at::zeros({batch, num_points}, points.options().dtype(at::kLong));
  if (num_points == 0) {
    return taken;
  }
  const Tensor clouds = points.contiguous();
  Tensor nearest = at::empty({batch, count}, points.options());
  int threads = 32;
  while (threads < count && threads < kMostThreads) {
    threads *= 2;
  }
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "furthest_point_sample", [&] {
    PERCEPTION_LAUNCH_TOGETHER(
        sample_kernel<scalar_t>, batch, threads, 32 * (sizeof(scalar_t) + sizeof(int64_t)),
        clouds.const_data_ptr<scalar_t>(), count, num_points, skip_near_origin, nearest.mutable_data_ptr<scalar_t>(),
        taken.mutable_data_ptr<int64_t>());
  });
  return taken;
}

// A thread per centre; the threads of a warp read the same point at the same time. Bound: 3 N M subtractions and squares.
template <typename T>
__global__ void ball_kernel(
    const T* __restrict__ points,
    const T* __restrict__ centres,
    int64_t count,
    int64_t number,
    int64_t total,
    T low,
    T high,
    int64_t num_samples,
    int64_t* __restrict__ found) {
  PERCEPTION_FOR(row, total) {
    const T* cloud = points + row / number * count * 3;
    const T x = centres[3 * row], y = centres[3 * row + 1], z = centres[3 * row + 2];
    int64_t* list = found + row * num_samples;
    int64_t hits = 0;
    for (int64_t i = 0; i < count && hits < num_samples; ++i) {
      const T distance = squared_distance(x - cloud[3 * i], y - cloud[3 * i + 1], z - cloud[3 * i + 2]);
      if (distance == 0 || (distance >= low && distance < high)) {
        list[hits++] = i;
      }
    }
    for (int64_t i = hits; hits > 0 && i < num_samples; ++i) {
      list[i] = list[0];
    }
  }
}

Tensor ball_query(
    const Tensor& points, const Tensor& centres, double min_square, double max_square, int64_t num_samples) {
  check_clouds(points, centres);
  PERCEPTION_GUARD(points);
  const Tensor clouds = points.contiguous(), places = centres.contiguous();
  const int64_t batch = points.size(0), number = centres.size(1);
  Tensor found = at::full({batch, number, num_samples}, -1, points.options().dtype(at::kLong));
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "ball_query", [&] {
    PERCEPTION_LAUNCH(
        ball_kernel<scalar_t>, blocks_for(batch * number), kThreads, 0, clouds.const_data_ptr<scalar_t>(),
        places.const_data_ptr<scalar_t>(), points.size(1), number, batch * number, scalar_t(min_square),
        scalar_t(max_square), num_samples, found.mutable_data_ptr<int64_t>());
  });
  return found;
}

// A thread per centre inserts into its sorted list, which the cache holds.
template <typename T>
__global__ void knn_kernel(
    const T* __restrict__ points,
    const T* __restrict__ centres,
    int64_t count,
    int64_t number,
    int64_t total,
    int64_t k,
    T* __restrict__ distances,
    int64_t* __restrict__ indices) {
  PERCEPTION_FOR(row, total) {
    const T* cloud = points + row / number * count * 3;
    const T x = centres[3 * row], y = centres[3 * row + 1], z = centres[3 * row + 2];
    T* near = distances + row * k;
    int64_t* which = indices + row * k;
    T worst = std::numeric_limits<T>::infinity();
    for (int64_t i = 0; i < count; ++i) {
      const T distance = squared_distance(x - cloud[3 * i], y - cloud[3 * i + 1], z - cloud[3 * i + 2]);
      if (!(distance < worst)) {
        continue;
      }
      int64_t slot = k - 1;
      for (; slot > 0 && distance < near[slot - 1]; --slot) {
        near[slot] = near[slot - 1];
        which[slot] = which[slot - 1];
      }
      near[slot] = distance;
      which[slot] = i;
      worst = near[k - 1];
    }
  }
}

std::tuple<Tensor, Tensor> knn(const Tensor& points, const Tensor& centres, int64_t k) {
  check_clouds(points, centres);
  PERCEPTION_GUARD(points);
  const Tensor clouds = points.contiguous(), places = centres.contiguous();
  const int64_t batch = points.size(0), number = centres.size(1);
  Tensor distances = at::full({batch, number, k}, std::numeric_limits<double>::infinity(), points.options());
  Tensor indices = at::zeros({batch, number, k}, points.options().dtype(at::kLong));
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "knn", [&] {
    PERCEPTION_LAUNCH(
        knn_kernel<scalar_t>, k > 0 ? blocks_for(batch * number) : 0, kThreads, 0, clouds.const_data_ptr<scalar_t>(),
        places.const_data_ptr<scalar_t>(), points.size(1), number, batch * number, k,
        distances.mutable_data_ptr<scalar_t>(), indices.mutable_data_ptr<int64_t>());
  });
  return {distances, indices};
}

std::tuple<Tensor, Tensor> three_nn(const Tensor& targets, const Tensor& sources) {
  return knn(sources, targets, 3);
}

PERCEPTION_CUDA_KERNELS(m) {
  m.impl("furthest_point_sample", furthest_point_sample);
  m.impl("ball_query", ball_query);
  m.impl("knn", knn);
  m.impl("three_nn", three_nn);
}

} // namespace
} // namespace perception
