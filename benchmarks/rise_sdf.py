"""Times of RISE-SDF on a CPU: the parts of a training step, gradients by differences, the prefilter of the light.

python benchmarks/rise_sdf.py
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.nn import functional

from perception.radiance.environment import EnvironmentLight
from projects.rise_sdf.core import RiseSDF
from projects.rise_sdf.settings import GeometrySettings, IndirectSettings, LightSettings


def seconds(run: Callable[[], object], rounds: int) -> float:
    """Median processor time of a call, which other programs do not lengthen much."""
    run()
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        run()
        times.append(time.process_time() - begin)
    return statistics.median(times)


def steps(rays: int, rounds: int) -> list[tuple[str, float]]:
    """Parts of a step of the second stage at the published sizes (light of 64 texels), forward and backward."""
    torch.manual_seed(0)
    geometry = GeometrySettings(variance=0.55, num_samples=256, occupancy_resolution=64)
    field = RiseSDF(geometry, light=LightSettings(64), indirect=IndirectSettings())
    surface = field.surface
    surface.set_step(80_000)
    for step in (0, 16):
        surface.update_occupancy(step, torch.Generator().manual_seed(step))
    origins = functional.normalize(torch.randn(rays, 3), dim=-1) * 4
    directions = functional.normalize(torch.rand(rays, 3) - 0.5 - origins, dim=-1)
    sections = surface.march(origins, directions)
    points = sections.points(origins, directions)
    unit = (points + 1.5) / 3
    light = field.light.build()
    held = [level.detach() for level in light.specular]
    flat = light._replace(specular=held, diffuse=light.diffuse.detach())
    found = surface.samples(origins, directions, sections)
    parts = (points, found.feature.detach(), found.directions, found.normal.detach())
    print(f"{rays} rays, {len(points)} samples; seconds of one core")
    return [
        ("hash grid, samples alone", seconds(lambda: surface.sdf.encoding(unit).sum().backward(), rounds)),
        ("distance, samples alone", seconds(lambda: surface.sdf.features(points).sum().backward(), rounds)),
        ("distance and gradient: seven places in one call", seconds(lambda: _sum(surface.sdf(points)), rounds)),
        ("the same in seven calls", seconds(lambda: _seven_calls(surface.sdf, points), rounds)),
        ("marching, with opacities", seconds(lambda: surface.march(origins, directions), rounds)),
        ("texture and shading", seconds(lambda: field.texture(*parts, flat).sum().backward(), rounds)),
        ("light: levels and back", seconds(lambda: sum(x.sum() for x in field.light.build()[0]).backward(), rounds)),
        (
            "mirror rays",
            seconds(lambda: surface.trace(origins / 8, directions, near=0.05, far=1.5, samples=96), rounds),
        ),
        ("whole step", seconds(lambda: _step(field, origins, directions), rounds)),
    ]


def _sum(samples) -> None:
    (samples.sdf.sum() + samples.gradient.square().sum()).backward()


def _mirror(surface, origins, directions) -> None:
    surface.trace(origins, directions, near=0.05, far=1.5, samples=96)


def _seven_calls(sdf, points) -> None:
    total = sdf.distance(points).sum()
    for axis in range(3):
        step = torch.zeros(3)
        step[axis] = sdf.eps
        total = total + ((sdf.distance(points + step) - sdf.distance(points - step)) / sdf.eps / 2).square().sum()
    total.backward()


def _step(field, origins, directions) -> None:
    shown = field(origins, directions, light=field.light.build())
    sum(colour.mean() for colour in shown.colours.values()).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rays", type=int, default=128, help="of a step (default: 128)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each part (default: 3)")
    parser.add_argument("--light", type=int, default=64, help="texels per side of the prefiltered light (default: 64)")
    args = parser.parse_args()
    light = EnvironmentLight(args.light)
    begin = time.process_time()
    light.build()
    print(f"light of {args.light} texels: first build, with weights, {time.process_time() - begin:.2f} s")
    with torch.no_grad():
        print(f"light of {args.light} texels: {seconds(light.build, args.rounds):.4f} s a build")
    for name, took in steps(args.rays, args.rounds):
        print(f"{name:50s} {took:.3f}")


if __name__ == "__main__":
    main()
