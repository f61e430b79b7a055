#include "../soft_nms.h"

#include "platform.h"

namespace perception {
namespace {

constexpr int kMostThreads = 1024;
constexpr int kMostWarps = kMostThreads / 32;

// Threads of the one block that walks down the ranks: as many as boxes, in whole warps.
inline unsigned threads_for(int64_t count) {
  return static_cast<unsigned>(std::min<int64_t>(kMostThreads, ceil_div(count, 32) * 32));
}

template <typename T>
struct Columns {
  T* numbers; // x1, y1, x2, y2, score, area: `stride` of each
  int64_t* index;
  int64_t stride;

  __device__ T* column(int number) const {
    return numbers + number * stride;
  }
  __device__ T* score() const {
    return column(4);
  }
  __device__ UprightBox<T> box(int64_t i) const {
    return {column(0)[i], column(1)[i], column(2)[i], column(3)[i], column(5)[i]};
  }
  __device__ void move(int64_t from, int64_t to) const {
    for (int number = 0; number < 6; ++number) {
      column(number)[to] = column(number)[from];
    }
    index[to] = index[from];
  }
  __device__ void swap(int64_t i, int64_t j) const {
    for (int number = 0; number < 6; ++number) {
      const T value = column(number)[i];
      column(number)[i] = column(number)[j];
      column(number)[j] = value;
    }
    const int64_t value = index[i];
    index[i] = index[j];
    index[j] = value;
  }
};

// What the threads of the block tell one another.
template <typename T>
struct Exchange {
  T highest[kMostWarps];
  int64_t place[kMostWarps];
  int low[kMostWarps];
  int low_of_thread[kMostThreads];
};

// The better of two places: the higher score, of equal ones the first. What is not a number is never higher.
template <typename T>
__device__ __forceinline__ void take_better(T& highest, int64_t& place, T other, int64_t other_place) {
  if (other > highest || (other == highest && other_place < place)) {
    highest = other;
    place = other_place;
  }
}

// One block: each step takes the highest box, lowers the others' scores, and closes the gaps of those that fall below
// the least score with boxes from the end (mmcv's order, which decides which of equal scores is taken first). Every
// thread owns a run of places; `gaps` holds as many numbers as there are boxes.
// Bound: the boxes stay in cache, so a step costs its four or five barriers.
template <typename T, SoftNms method>
__global__ void __launch_bounds__(kMostThreads) soft_nms_kernel(
    Columns<T> all, int64_t count, T threshold, T sigma, T lowest, T offset, int64_t* __restrict__ gaps, int64_t* kept) {
  PERCEPTION_SHARED(Exchange<T>, shared);
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, warps = blockDim.x / 32;
  T* score = all.score();
  for (int64_t i = thread; i < count; i += blockDim.x) {
    const UprightBox<T> box = all.box(i);
    all.column(5)[i] = (box.x2 - box.x1 + offset) * (box.y2 - box.y1 + offset);
  }
  __syncthreads();
  for (int64_t taken = 0; taken < count; ++taken) {
    T highest = score[taken];
    int64_t place = taken;
    for (int64_t i = taken + 1 + thread; i < count; i += blockDim.x) {
      take_better(highest, place, score[i], i);
    }
    for (int by = 16; by > 0; by /= 2) {
      const T other = __shfl_xor_sync(kWholeWarp, highest, by);
      const int64_t other_place = __shfl_xor_sync(kWholeWarp, place, by);
      take_better(highest, place, other, other_place);
    }
    if (lane == 0) {
      shared->highest[warp] = highest;
      shared->place[warp] = place;
    }
    __syncthreads();
    if (thread == 0) {
      for (int other = 1; other < warps; ++other) {
        take_better(highest, place, shared->highest[other], shared->place[other]);
      }
      if (place != taken) {
        all.swap(taken, place);
      }
    }
    __syncthreads();

    const UprightBox<T> best = all.box(taken);
    const int64_t first = taken + 1, run = (count - first + blockDim.x - 1) / blockDim.x;
    const int64_t begin = first + thread * run, end = least(begin + run, count);
    int low = 0;
    for (int64_t i = begin; i < end; ++i) {
      score[i] = lowered<T, method>(score[i], upright_iou(best, all.box(i), offset), threshold, sigma);
      low += score[i] < lowest;
    }
    shared->low_of_thread[thread] = low;
    for (int by = 16; by > 0; by /= 2) {
      low += __shfl_xor_sync(kWholeWarp, low, by);
    }
    if (lane == 0) {
      shared->low[warp] = low;
    }
    __syncthreads();
    int64_t removed = 0, before = 0; // low scores in all, and in front of this thread's run
    for (int other = 0; other < warps; ++other) {
      removed += shared->low[other];
      before += other < warp ? shared->low[other] : 0;
    }
    if (removed > 0) { // for all threads alike
      for (int other = thread - lane; other < thread; ++other) {
        before += shared->low_of_thread[other];
      }
      const int64_t stop = count - removed;
      int64_t gap = before;
      for (int64_t i = begin; i < end && i < stop; ++i) {
        if (score[i] < lowest) {
          gaps[gap++] = i;
        }
      }
      __syncthreads();
      int64_t staying = begin - first - before; // in front of place i
      for (int64_t i = begin; i < end; ++i) {
        if (score[i] < lowest) {
          continue;
        }
        ++staying;
        if (i >= stop) {
          all.move(i, gaps[stop - first - staying]);
        }
      }
      count = stop;
      __syncthreads();
    }
  }
  if (thread == 0) {
    *kept = count;
  }
}

std::tuple<Tensor, Tensor> soft_nms(
    const Tensor& boxes,
    const Tensor& scores,
    double iou_threshold,
    double sigma,
    double min_score,
    int64_t method,
    int64_t offset) {
  check_scored_boxes(boxes, scores);
  PERCEPTION_GUARD(boxes);
  const int64_t count = boxes.size(0);
  Tensor state = at::empty({6, count}, boxes.options());
  state.narrow(0, 0, 4).copy_(boxes.t());
  state.select(0, 4).copy_(scores);
  const auto whole = boxes.options().dtype(at::kLong);
  Tensor index = at::arange(count, whole), gaps = at::empty({count}, whole), kept = at::zeros({1}, whole);
  AT_DISPATCH_FLOATING_TYPES(boxes.scalar_type(), "soft_nms", [&] {
    const Columns<scalar_t> all{state.mutable_data_ptr<scalar_t>(), index.mutable_data_ptr<int64_t>(), count};
    const auto run = [&](auto kernel) {
      PERCEPTION_LAUNCH_TOGETHER(
          kernel, count > 0 ? 1 : 0, threads_for(count), sizeof(Exchange<scalar_t>), all, count,
          scalar_t(iou_threshold), scalar_t(sigma), scalar_t(min_score), scalar_t(offset),
          gaps.mutable_data_ptr<int64_t>(), kept.mutable_data_ptr<int64_t>());
    };
    switch (SoftNms(method)) {
      case SoftNms::naive:
        run(soft_nms_kernel<scalar_t, SoftNms::naive>);
        break;
      case SoftNms::linear:
        run(soft_nms_kernel<scalar_t, SoftNms::linear>);
        break;
      default:
        run(soft_nms_kernel<scalar_t, SoftNms::gaussian>);
    }
  });
  const int64_t left = kept.item<int64_t>();
  return {state.narrow(0, 0, 5).narrow(1, 0, left).t().contiguous(), index.narrow(0, 0, left).clone()};
}

// One block walks down the ranks; a box that has no leader when its turn comes leads all later ones that match it.
template <typename T>
__global__ void __launch_bounds__(kMostThreads)
    nms_match_kernel(const T* __restrict__ ranked, int64_t count, T threshold, int64_t* leader) {
  const auto box = [&](int64_t i) {
    const T x1 = ranked[4 * i], y1 = ranked[4 * i + 1], x2 = ranked[4 * i + 2], y2 = ranked[4 * i + 3];
    return UprightBox<T>{x1, y1, x2, y2, (x2 - x1) * (y2 - y1)};
  };
  for (int64_t i = 0; i < count; ++i) {
    const bool leads = leader[i] < 0; // for all threads alike: nobody writes here before the next barrier
    if (!leads) {
      continue;
    }
    const UprightBox<T> first = box(i);
    for (int64_t j = i + 1 + threadIdx.x; j < count; j += blockDim.x) {
      if (leader[j] < 0 && upright_iou(first, box(j), T(0)) >= threshold) {
        leader[j] = i;
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      leader[i] = i;
    }
  }
}

// For each rank, the rank of the box that removes it; its own where it stays.
Tensor nms_match(const Tensor& boxes, const Tensor& order, double iou_threshold) {
  check_scored_boxes(boxes, order);
  PERCEPTION_GUARD(boxes);
  const int64_t count = boxes.size(0);
  const Tensor ranked = boxes.index_select(0, order).contiguous();
  Tensor leader = at::full({count}, -1, boxes.options().dtype(at::kLong));
  AT_DISPATCH_FLOATING_TYPES(boxes.scalar_type(), "nms_match", [&] {
    PERCEPTION_LAUNCH_TOGETHER(
        nms_match_kernel<scalar_t>, count > 0 ? 1 : 0, threads_for(count), 0, ranked.const_data_ptr<scalar_t>(), count,
        scalar_t(iou_threshold), leader.mutable_data_ptr<int64_t>());
  });
  return leader;
}

PERCEPTION_CUDA_KERNELS(m) {
  m.impl("soft_nms", soft_nms);
  m.impl("nms_match", nms_match);
}

} // namespace
} // namespace perception
