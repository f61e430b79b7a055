"""Time of the geometry score: an opaque ball in a volume, seen by cameras all around."""

from __future__ import annotations

import argparse
import math
import time

import torch

from perception.evaluation.imrc import Box, Views, imrc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=128, help="voxels along a side (128)")
    parser.add_argument("--views", type=int, default=100, help="cameras (100)")
    parser.add_argument("--size", type=int, default=100, help="pixels along a side of their images (100)")
    parser.add_argument("--radius", type=float, default=0.6, help="of the ball, of half a side (0.6)")
    parser.add_argument("--density", type=float, default=60.0, help="of the ball, in 1 / half a side (60)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    centres = (torch.arange(args.resolution) + 0.5) * 2 / args.resolution - 1
    places = torch.stack(torch.meshgrid(centres, centres, centres, indexing="ij"), -1)
    volume = torch.where(places.norm(dim=-1) <= args.radius, args.density, 0.0)
    pixels = torch.rand(args.views, args.size, args.size, 3, generator=torch.Generator().manual_seed(0))
    focal, middle = 1.36 * args.size, (args.size - 1) / 2
    matrix = torch.tensor([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
    views = Views(list(pixels), matrix.repeat(args.views, 1, 1), around(args.views))
    start = time.perf_counter()
    score = imrc(volume, Box(torch.zeros(3), torch.ones(3)), views).score
    seconds = time.perf_counter() - start
    print(f"{int((volume > 0).sum())} voxels with density, {args.views} views, {args.threads} threads: {seconds:.1f} s")
    print(f"score of noise: {score:.2f} dB")


def around(count: int, distance: float = 3.0) -> torch.Tensor:
    """Poses (count, 3, 4), OpenCV axes, evenly around the origin, which they look at."""
    number = torch.arange(count)
    z = 1 - (2 * number + 1) / count
    angle = number * math.pi * (3 - math.sqrt(5))
    place = torch.stack([(1 - z * z).sqrt() * angle.cos(), (1 - z * z).sqrt() * angle.sin(), z], -1)
    up = torch.tensor([0.1, 0.2, 1.0]).expand(count, 3)
    right = torch.nn.functional.normalize(torch.linalg.cross(-place, up), dim=-1)
    return torch.stack([right, torch.linalg.cross(-place, right), -place, distance * place], -1)


if __name__ == "__main__":
    main()
