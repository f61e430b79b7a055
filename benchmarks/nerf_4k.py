"""Time of a joint step of 4K-NeRF, split into field, decoder and losses; memory layouts and precisions of the decoder.

One patch of the recipe, 64 x 64 rays of which the decoder makes 256 x 256 pixels, on random networks of the published
sizes; the field's grid is smaller than the recipe's unless asked. VGG19 has random weights, which take as long.
Measurements alternate. With --frame a whole picture is enlarged in tiles instead, and the peak of memory is shown.

    python benchmarks/nerf_4k.py --rounds 3
    python benchmarks/nerf_4k.py --frame 4032 3024 --tile 192 --pad 16
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from perception.radiance.distortion import distortion_loss
from perception.radiance.losses import background_entropy, sample_colour_error
from perception.radiance.mpi import DirectMPIGO
from projects.nerf_4k.decoder import SFTNet
from projects.nerf_4k.discriminator import UNetDiscriminatorSN
from projects.nerf_4k.losses import VggFeatures, discriminator_loss, generator_loss, perceptual_losses
from projects.nerf_4k.tiling import decode_in_tiles

SIDE = 64


class Step:
    """The parts of a joint step; each keeps its seconds under its name."""

    def __init__(self, across: int, depth: int):
        self.field = DirectMPIGO(
            (-1.5,) * 3, (1.5,) * 3, num_voxels=across**2 * depth, mpi_depth=depth, fast_color_thres=1 / depth / 5
        )
        nn.init.uniform_(self.field.density.grid, -1.0, 3.0)
        self.decoder, self.discriminator, self.vgg = SFTNet(), UNetDiscriminatorSN(), VggFeatures()
        rows, columns = torch.meshgrid(*(torch.linspace(-0.2, 0.2, SIDE),) * 2, indexing="ij")
        origins = torch.stack([columns, rows, torch.full_like(rows, -1.0)], -1).reshape(-1, 3)
        directions = torch.tensor([0.2, -0.1, 2.0]).expand_as(origins)
        self.rays = origins, directions, F.normalize(directions, dim=1)
        self.small, self.large = torch.rand(SIDE**2, 3), torch.rand(1, 3, 4 * SIDE, 4 * SIDE)
        self.seconds: dict[str, list[float]] = {}

    def __call__(self) -> None:
        rendering, seconds = timed(lambda: self.field(*self.rays))
        picture, depth = (x.view(1, SIDE, SIDE, -1).movedim(3, 1) for x in (rendering.rgb_feature, rendering.depth))
        leaf = picture.detach().requires_grad_()
        made, decoding = timed(lambda: self.decoder(leaf, depth))
        shown = made.detach().requires_grad_()
        _, self_seconds = timed(lambda: self._picture_losses(shown).backward())
        _, back = timed(lambda: made.backward(shown.grad))
        _, judging = timed(lambda: self._judge(made.detach()))
        _, field_back = timed(lambda: (self._field_losses(rendering) + (picture * leaf.grad).sum()).backward())
        self._keep("field", seconds + field_back)
        self._keep("decoder", decoding + back)
        self._keep("losses of the picture (VGG19 twice, discriminator)", self_seconds)
        self._keep("discriminator's own step", judging)

    def _field_losses(self, rendering) -> torch.Tensor:
        interval = 1 / rendering.num_steps
        distortion = distortion_loss(rendering.weights, rendering.s, interval, rendering.ray_id, SIDE**2)
        others = background_entropy(rendering.alphainv_last) + sample_colour_error(rendering, self.small)
        return (rendering.rgb_feature - self.small).abs().mean() + 0.01 * (distortion + others)

    def _picture_losses(self, shown: torch.Tensor) -> torch.Tensor:
        found = perceptual_losses(self.vgg, shown, self.large)
        return F.l1_loss(shown, self.large) + found.perceptual + found.style + generator_loss(self.discriminator(shown))

    def _judge(self, made: torch.Tensor) -> None:
        for picture, real in ((self.large, True), (made, False)):
            discriminator_loss(self.discriminator(picture), real=real).backward()

    def _keep(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)


def timed(call: Callable) -> tuple:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def parts(args: argparse.Namespace) -> None:
    step = Step(args.across, args.planes)
    for _ in range(args.rounds + 1):  # the first one warms up
        step()
    middle = {name: statistics.median(seconds[1:]) for name, seconds in step.seconds.items()}
    for name, seconds in middle.items():
        print(f"{name:52} {seconds:7.2f} s  {seconds / sum(middle.values()):5.0%}")


def layouts(args: argparse.Namespace) -> None:
    """A step of the decoder alone, and its forward pass, in both memory layouts and precisions."""
    plain, last = SFTNet(), SFTNet().to(memory_format=torch.channels_last)
    x, depth, target = torch.rand(1, 3, SIDE, SIDE), torch.rand(1, 1, SIDE, SIDE), torch.rand(1, 3, 4 * SIDE, 4 * SIDE)
    found: dict[str, list[float]] = {}
    for number in range(args.rounds + 1):
        for layout, decoder in (("contiguous", plain), ("channels last", last)):
            for half in (False, True):
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                    made, forward = timed(lambda decoder=decoder: decoder(x, depth))
                _, backward = timed(lambda made=made: F.l1_loss(made.float(), target).backward())
                if number:
                    name = f"{layout}, {'bfloat16' if half else 'float32'}"
                    found.setdefault(f"{name}, forward", []).append(forward)
                    found.setdefault(f"{name}, both", []).append(forward + backward)
    base = statistics.median(found["contiguous, float32, both"])
    for name, seconds in found.items():
        middle = statistics.median(seconds)
        print(f"decoder, {name:38} {middle:7.2f} s" + (f"  {middle / base:5.2f}" if name.endswith("both") else ""))


def frame(args: argparse.Namespace) -> None:
    decoder = SFTNet().to(memory_format=torch.channels_last)
    width, height = (side // 4 for side in args.frame)
    x, depth = torch.rand(1, 3, height, width), torch.rand(1, 1, height, width)
    before = _peak()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bfloat16):
        made, seconds = timed(lambda: decode_in_tiles(decoder, x, depth, tile_size=args.tile, tile_pad=args.pad))
    print(f"{made.shape[3]} x {made.shape[2]} in {seconds:.0f} s, peak {_peak():.2f} GiB ({before:.2f} before)")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--across", type=int, default=192, help="cells of the grid along x and y")
    parser.add_argument("--planes", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frame", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="enlarge to this picture")
    parser.add_argument("--tile", type=int, default=192)
    parser.add_argument("--pad", type=int, default=16)
    parser.add_argument("--bfloat16", action="store_true", help="with --frame")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.frame:
        frame(args)
    else:
        parts(args)
        layouts(args)


if __name__ == "__main__":
    main()
