"""The operators written out as plain loops over numbers, and other things that several tests need."""

import math

import torch


def weighted_sum(output):
    """A scalar whose gradient by every entry of the output is different."""
    return (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum()


def gradients(function, *inputs):
    """Gradients of `weighted_sum(function(*inputs))` by all inputs."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    return torch.autograd.grad(weighted_sum(function(*leaves)), leaves)


def strided(x):
    """The same values in memory that is not contiguous."""
    wide = x.new_full((*x.shape, 2), math.nan)
    wide[..., 0] = x
    return wide[..., 0]


def some_boxes(count, size=100, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * size * 0.8
    extent = torch.rand(count, 2, generator=generator, dtype=torch.float64) * size * 0.35 + 1
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    return torch.cat([corner, corner + extent], 1).to(dtype), scores.to(dtype)


def some_rotated_boxes(count, size=100, seed=0, dtype=torch.float32):
    boxes, scores = some_boxes(count, size, seed, torch.float64)
    angle = torch.rand(count, 1, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64) * 3 - 1.5
    rotated = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2], angle], 1)
    return rotated.to(dtype), scores.to(dtype)


def box_iou(a, b, offset=0, over_first=False):
    """Of two float32 boxes, in float32."""
    width = torch.clamp(torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0]) + offset, min=0)
    height = torch.clamp(torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1]) + offset, min=0)
    overlap = width * height
    area_a = (a[2] - a[0] + offset) * (a[3] - a[1] + offset)
    area_b = (b[2] - b[0] + offset) * (b[3] - b[1] + offset)
    return overlap / (area_a if over_first else area_a + area_b - overlap)


def greedy_nms(order, suppresses):
    """Indices kept when `suppresses(i, j)` says whether a kept i removes a later j."""
    kept = []
    for j in order:
        if not any(suppresses(i, j) for i in kept):
            kept.append(j)
    return kept


def by_score(scores):
    return sorted(range(len(scores)), key=lambda i: -scores[i].item())


def roi_bilinear(image, y, x):
    """A map (H, W) at (y, x): its border up to one pixel outside, zero beyond."""
    height, width = image.shape
    if y < -1 or y > height or x < -1 or x > width:
        return image.new_zeros(())
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    v, u = y - top, x - left
    upper = image[top, left] * (1 - u) + image[top, right] * u
    lower = image[bottom, left] * (1 - u) + image[bottom, right] * u
    return upper * (1 - v) + lower * v


def zero_bilinear(image, y, x):
    """A map (H, W) at (y, x) as if it were surrounded by zeros."""
    height, width = image.shape
    top, left = math.floor(y), math.floor(x)
    value = image.new_zeros(())
    for row, v in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, u in ((left, 1 - (x - left)), (left + 1, x - left)):
            if 0 <= row < height and 0 <= column < width:
                value = value + image[row, column] * v * u
    return value
