"""Time and memory of a training step of the backbone: ARC-R50 (n = 4) against mmdet's ResNet-50.

Both see the same images in turn, forward and backward, as in the recipe: the stem and the first stage frozen, batch
norm in evaluation mode. The goal: at most 1.15 times the time. Below that, where the difference goes: the same for one
3x3 convolution of each stage and the parts of the adaptive one, and the decoding of 10 000 midpoint offsets.

    python benchmarks/arc_backbone.py --size 512 --batch 2 --rounds 5
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable

import torch
from mmdet.registry import MODELS, TASK_UTILS
from torch import Tensor, nn

import perception.detection.midpoint_offsets  # noqa: F401 (registers)
from perception.engine.memory import keep_freed_memory, peak_of
from projects.arc.conv import AdaptiveRotatedConv2d
from projects.arc.rotation import combine_kernels

BACKBONES = {"ResNet-50": "mmdet.ResNet", "ARC-R50, n = 4": "mmdet.ARCResNet"}
CODERS = {"mmrotate": "mmrotate.MidpointOffsetCoder", "closed form": "mmrotate.ClosedFormMidpointOffsetCoder"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="image side in pixels")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    print(f"{args.batch} x {args.size} px, {args.device}, {args.threads} threads, median of {args.rounds} rounds")

    size = (args.batch, 3, args.size, args.size)
    images = torch.randn(size, device=args.device)
    compare({name: step_of(build(kind, args.device), images) for name, kind in BACKBONES.items()}, args.rounds)
    for name, kind in BACKBONES.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(f"{name:22s} {pool.apply(step_memory, (kind, size, args.device)):6.0f} MiB more at most in a step")

    for stage, channels in enumerate((128, 256, 512), start=2):
        side = args.size // 2 ** (stage + 1)
        print(f"\na 3x3 convolution of stage {stage}: {channels} channels, {side} x {side}")
        x = torch.randn(args.batch, channels, side, side, device=args.device, requires_grad=True)
        plain = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(args.device)
        arc = AdaptiveRotatedConv2d(channels, channels, kernel_number=4).to(args.device)
        compare(
            {
                "plain": step_of(plain, x),
                "adaptive rotated": step_of(arc, x),
                "  of it the routing": step_of(arc.routing, x),
                "  of it the kernels": step_of(lambda x, arc=arc: combine(arc, len(x)), x),
            },
            args.rounds,
        )

    print("\n10 000 midpoint offsets to boxes")
    anchors, deltas = torch.rand(10_000, 4) + torch.tensor([0.0, 0, 20, 10]), torch.randn(10_000, 6) * 0.3
    coders = {name: TASK_UTILS.build(dict(type=kind, angle_version="le90")) for name, kind in CODERS.items()}
    compare({name: lambda coder=coder: coder.decode(anchors, deltas) for name, coder in coders.items()}, args.rounds)


def build(kind: str, device: str) -> nn.Module:
    model = MODELS.build(dict(type=kind, depth=50, frozen_stages=1, norm_eval=True)).to(device)
    model.train()
    return model


def combine(arc: AdaptiveRotatedConv2d, batch: int) -> Tensor:
    alpha = torch.full((batch, 4), 0.5, device=arc.weight.device, requires_grad=True)
    return combine_kernels(arc.weight, alpha, alpha - 0.3)


def step_of(function: Callable, x: Tensor) -> Callable[[], None]:
    """One forward and backward pass, ending with gradients freed."""

    def step() -> None:
        outputs = function(x)
        outputs = [y for y in ([outputs] if isinstance(outputs, Tensor) else outputs) if y.requires_grad]
        torch.autograd.backward(outputs, [torch.ones_like(y) for y in outputs])
        x.grad = None
        if isinstance(function, nn.Module):
            function.zero_grad(set_to_none=True)

    return step


def compare(steps: dict[str, Callable[[], None]], rounds: int) -> None:
    """Runs the steps in turn and prints medians, and ratios to the first."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    first = statistics.median(next(iter(times.values())))
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:22s} {median * 1000:9.2f} ms  {median / first:5.2f} x")


def step_memory(kind: str, size: tuple[int, ...], device: str) -> float:
    """MiB that a training step takes beyond the model's weights, in a fresh process."""
    step = step_of(build(kind, device), torch.randn(size, device=device))
    if device != "cpu":
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    return peak_of(step)


if __name__ == "__main__":
    main()
