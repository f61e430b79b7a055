#include "../soft_nms.h"

#include "common.h"

namespace perception {
namespace {

constexpr int64_t kLanes = 16; // that look for the highest score at once
constexpr int64_t kBlock = 256; // overlaps computed before any is used, so that they vectorise

// One array per number of a box, so that a box is compared with many at once.
template <typename T>
struct Columns {
  T *x1, *y1, *x2, *y2, *score, *area;
  int64_t* index;

  UprightBox<T> box(int64_t i) const {
    return {x1[i], y1[i], x2[i], y2[i], area[i]};
  }
  void move(int64_t from, int64_t to) const {
    for (T* column : {x1, y1, x2, y2, score, area}) {
      column[to] = column[from];
    }
    index[to] = index[from];
  }
  void swap(int64_t i, int64_t j) const {
    for (T* column : {x1, y1, x2, y2, score, area}) {
      std::swap(column[i], column[j]);
    }
    std::swap(index[i], index[j]);
  }
};

// The first of the highest scores. One that is not a number stays in front if it is there, and else is passed over.
template <typename T>
int64_t first_highest(const T* score, int64_t begin, int64_t end) {
  T highest[kLanes];
  std::fill_n(highest, kLanes, score[begin]);
  int64_t i = begin + 1;
  for (; i + kLanes <= end; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      highest[lane] = greatest(highest[lane], score[i + lane]);
    }
  }
  for (; i < end; ++i) {
    highest[0] = greatest(highest[0], score[i]);
  }
  for (int64_t lane = 1; lane < kLanes; ++lane) {
    highest[0] = greatest(highest[0], highest[lane]);
  }
  i = begin;
  while (i < end && score[i] != highest[0]) {
    ++i;
  }
  return i < end ? i : begin;
}

// Lowers the scores of boxes [begin, end) by their overlap with `box`; whether any falls below `lowest`.
template <typename T, SoftNms method>
bool lower(const Columns<T>& all, UprightBox<T> box, int64_t begin, int64_t end, T threshold, T sigma, T lowest, T offset) {
  T overlap[kBlock];
  int low = 0;
  for (int64_t start = begin; start < end; start += kBlock) {
    const int64_t number = std::min(kBlock, end - start);
    T* __restrict__ score = all.score + start;
#pragma omp simd
    for (int64_t i = 0; i < number; ++i) {
      overlap[i] = upright_iou(box, all.box(start + i), offset);
    }
    if constexpr (method == SoftNms::gaussian) { // an exponential for the few that overlap
      for (int64_t i = 0; i < number; ++i) {
        if (overlap[i] != 0) {
          score[i] = lowered<T, method>(score[i], overlap[i], threshold, sigma);
        }
      }
    }
#pragma omp simd reduction(| : low)
    for (int64_t i = 0; i < number; ++i) {
      if constexpr (method != SoftNms::gaussian) {
        score[i] = lowered<T, method>(score[i], overlap[i], threshold, sigma);
      }
      low |= score[i] < lowest;
    }
  }
  return low;
}

// Each box below `lowest` is overwritten by the last one that is not. The order that this leaves is mmcv's, and decides
// which of equal scores is taken first.
template <typename T>
int64_t remove_low(const Columns<T>& all, int64_t begin, int64_t end, T lowest) {
  for (int64_t i = begin; i < end; ++i) {
    if (all.score[i] < lowest) {
      do {
        --end;
      } while (end > i && all.score[end] < lowest);
      if (end > i) {
        all.move(end, i);
      }
    }
  }
  return end;
}

template <typename T, SoftNms method>
int64_t suppress(const Columns<T>& all, int64_t count, T threshold, T sigma, T lowest, T offset) {
  for (int64_t taken = 0; taken < count; ++taken) {
    const int64_t best = first_highest(all.score, taken, count);
    if (best != taken) {
      all.swap(taken, best);
    }
    if (lower<T, method>(all, all.box(taken), taken + 1, count, threshold, sigma, lowest, offset)) {
      count = remove_low(all, taken + 1, count, lowest);
    }
  }
  return count;
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
  int64_t count = boxes.size(0);
  Tensor state = at::empty({6, count}, boxes.options());
  state.narrow(0, 0, 4).copy_(boxes.t());
  state.select(0, 4).copy_(scores);
  Tensor index = at::arange(count, boxes.options().dtype(at::kLong));
  AT_DISPATCH_FLOATING_TYPES(boxes.scalar_type(), "soft_nms", [&] {
    scalar_t* data = state.mutable_data_ptr<scalar_t>();
    const Columns<scalar_t> all{
        data, data + count, data + 2 * count, data + 3 * count, data + 4 * count, data + 5 * count,
        index.mutable_data_ptr<int64_t>()};
    for (int64_t i = 0; i < count; ++i) {
      all.area[i] = (all.x2[i] - all.x1[i] + offset) * (all.y2[i] - all.y1[i] + offset);
    }
    const auto run = [&](auto suppress_by) {
      count = suppress_by(
          all, count, scalar_t(iou_threshold), scalar_t(sigma), scalar_t(min_score), scalar_t(offset));
    };
    switch (SoftNms(method)) {
      case SoftNms::naive:
        run(suppress<scalar_t, SoftNms::naive>);
        break;
      case SoftNms::linear:
        run(suppress<scalar_t, SoftNms::linear>);
        break;
      default:
        run(suppress<scalar_t, SoftNms::gaussian>);
    }
  });
  return {state.narrow(0, 0, 5).narrow(1, 0, count).t().contiguous(), index.narrow(0, 0, count).clone()};
}

// `ranked`: x1, y1, x2, y2 of all boxes in order of rank.
template <typename T>
void match(const T* ranked, int64_t count, T threshold, int64_t* __restrict__ leader) {
  const T *x1 = ranked, *y1 = x1 + count, *x2 = y1 + count, *y2 = x2 + count;
  std::vector<T> areas(count);
  T* area = areas.data();
  for (int64_t i = 0; i < count; ++i) {
    area[i] = (x2[i] - x1[i]) * (y2[i] - y1[i]);
  }
  for (int64_t i = 0; i < count; ++i) {
    if (leader[i] >= 0) {
      continue;
    }
    leader[i] = i;
    const UprightBox<T> best{x1[i], y1[i], x2[i], y2[i], area[i]};
#pragma omp simd
    for (int64_t j = i + 1; j < count; ++j) {
      const bool matches = upright_iou(best, UprightBox<T>{x1[j], y1[j], x2[j], y2[j], area[j]}, T(0)) >= threshold;
      leader[j] = matches && leader[j] < 0 ? i : leader[j];
    }
  }
}

// For each rank, the rank of the box that removes it; its own where it stays.
Tensor nms_match(const Tensor& boxes, const Tensor& order, double iou_threshold) {
  check_scored_boxes(boxes, order);
  const Tensor ranked = boxes.index_select(0, order).t().contiguous();
  Tensor leader = at::full({boxes.size(0)}, -1, boxes.options().dtype(at::kLong));
  AT_DISPATCH_FLOATING_TYPES(boxes.scalar_type(), "nms_match", [&] {
    match(
        ranked.const_data_ptr<scalar_t>(), boxes.size(0), scalar_t(iou_threshold), leader.mutable_data_ptr<int64_t>());
  });
  return leader;
}

PERCEPTION_CPU_KERNELS(m) {
  m.impl("soft_nms", soft_nms);
  m.impl("nms_match", nms_match);
}

} // namespace
} // namespace perception
