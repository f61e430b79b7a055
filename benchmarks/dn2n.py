"""Rendering from source views: rays per second, where the time goes, peak memory, on networks of the published
sizes with random weights.

    python benchmarks/dn2n.py --views 10 --rays 500
"""

import argparse
import statistics
import time

import torch

from perception.engine.memory import keep_freed_memory
from projects.dn2n.aggregation import IBRNet
from projects.dn2n.features import ResUNet
from projects.dn2n.projection import camera_rays, camera_vector, gather
from projects.dn2n.rendering import Rays, Renderer, sample_depths

WIDTH, HEIGHT = 504, 378


def peak() -> float:
    """Largest memory of this process so far, in MiB."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def median_time(run, rounds: int) -> float:
    """Processor time of a call in seconds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=10, help="source views (%(default)s)")
    parser.add_argument("--rays", type=int, default=500, help="rays at once (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements, of which the median counts (%(default)s)")
    args = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    renderer = Renderer(ResUNet(), IBRNet(32, 64), IBRNet(32, 128))
    poses = torch.eye(4).repeat(args.views + 1, 1, 1)
    poses[:, :2, 3] = 0.3 * torch.randn(args.views + 1, 2)
    intrinsics = torch.tensor([[400.0, 0, WIDTH / 2], [0, 400, HEIGHT / 2], [0, 0, 1]]).expand(args.views + 1, 3, 3)
    cameras = camera_vector(HEIGHT, WIDTH, intrinsics, poses)
    images = torch.rand(args.views, 3, HEIGHT, WIDTH)
    pixels = torch.rand(args.rays, 2) * torch.tensor([WIDTH - 1.0, HEIGHT - 1.0])
    origins, directions = camera_rays(cameras[0], pixels)
    rays = Rays(origins, directions, cameras[0], 2.0, 6.0)
    before = peak()
    with torch.no_grad():
        sources = renderer.sources(images, cameras[1:])
        features = median_time(lambda: renderer.feature_net(images), 1)
        rendering = median_time(lambda: renderer(rays, sources), args.rounds)
        z = sample_depths(2.0, 6.0, args.rays, 128, like=origins)
        points = origins[:, None] + z[..., None] * directions[:, None]
        inputs = (points, cameras[0], images, cameras[1:], sources.fine)
        gathering = median_time(lambda: gather(*inputs), args.rounds)
        found = gather(*inputs)
        aggregating = median_time(lambda: renderer.net_fine(*found), args.rounds)
    print(f"features of {args.views} views of {WIDTH} x {HEIGHT}: {features:.2f} s", flush=True)
    print(f"{args.rays} rays, 64 + 128 samples: {rendering:.2f} s, {args.rays / rendering:.0f} rays/s", flush=True)
    print(
        f"of which at 128 samples: gathering (grid_sample) {gathering:.2f} s, aggregation {aggregating:.2f} s",
        flush=True,
    )
    print(f"peak memory, rendering: {peak():.0f} MiB, {before:.0f} MiB of it before", flush=True)

    def step() -> None:
        renderer(rays, renderer.sources(images, cameras[1:])).best.rgb.mean().backward()

    print(
        f"a training step, features and both networks: {median_time(step, 1):.2f} s, peak memory {peak():.0f} MiB",
        flush=True,
    )


if __name__ == "__main__":
    main()
