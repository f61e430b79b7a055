"""Time and memory of FreqFusion, CARAFE and nearest upsampling in a feature pyramid, forward and backward.

Three necks of equal sizes see the same maps in turn: mmdet's FPN (nearest upsampling and adding), mmdet's FPN_CARAFE
and our FreqFusionFPN with the published settings, with and without its offsets. Memory is what autograd keeps for the
backward pass beside weights and inputs. All run on the torch references and, where they are
built, on the native operators.

    make ops
    python benchmarks/freqfusion_fusion.py --size 256 --rounds 5 --threads 2
"""

import argparse
import statistics
import time

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from torch import Tensor, nn

from perception.engine.memory import keep_freed_memory
from perception.ops import backend
from projects.freqfusion.neck import FreqFusionFPN

CHANNELS = [256, 512, 1024, 2048]


def necks() -> dict[str, nn.Module]:
    """Four levels each: the fifth is not the same in all of them."""
    settings = dict(in_channels=CHANNELS, out_channels=256, num_outs=4)
    return {
        "nearest, add": MODELS.build(dict(type="mmdet.FPN", **settings)),
        "CARAFE": MODELS.build(dict(type="mmdet.FPN_CARAFE", **settings)),
        "FreqFusion without offsets": FreqFusionFPN(**settings, feature_resample=False),
        "FreqFusion": FreqFusionFPN(**settings),
    }


def step(neck: nn.Module, maps: list[Tensor]) -> tuple[float, float]:
    """Seconds of the forward and of the backward pass."""
    start = time.perf_counter()
    loss = sum(x.square().mean() for x in neck(maps))
    middle = time.perf_counter()
    loss.backward()
    end = time.perf_counter()
    neck.zero_grad(set_to_none=True)
    return middle - start, end - middle


def kept(neck: nn.Module, maps: list[Tensor]) -> float:
    """MiB that the backward pass needs beside weights and inputs."""
    known = {x.untyped_storage().data_ptr() for x in (*neck.parameters(), *neck.buffers(), *maps)}
    held: dict[int, Tensor] = {}

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in known:
            held[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        outputs = neck(maps)
    del outputs
    return sum(x.untyped_storage().nbytes() for x in held.values()) / 2**20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="side of the image in pixels (default: 256)")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each neck (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    args = parser.parse_args()
    if args.size % 32:
        parser.error(f"--size must be a multiple of 32, not {args.size}")
    register_all_modules()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    modes = ["reference", "native"] if "cpu" in backend.devices() else ["reference"]
    maps = [
        torch.randn(1, channels, args.size // stride, args.size // stride, requires_grad=True)
        for channels, stride in zip(CHANNELS, (4, 8, 16, 32))
    ]
    built = necks()
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for round_number in range(args.rounds + 1):
        for mode in modes:
            for name, neck in built.items():
                with backend.use(mode):
                    taken = step(neck, maps)
                if round_number:  # the first warms up
                    times.setdefault((mode, name), []).append(taken)
    print(f"torch {torch.__version__}, {args.threads} threads, image {args.size} px, medians of {args.rounds} rounds")
    print("| operators | neck | forward, ms | backward, ms | both, ms | ratio to nearest | to CARAFE | kept, MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for mode in modes:
        both = {name: statistics.median(sum(t) for t in times[mode, name]) for name in built}
        for name, neck in built.items():
            forward, backward = (1000 * statistics.median(t[i] for t in times[mode, name]) for i in (0, 1))
            with backend.use(mode):
                memory = kept(neck, maps)
            ratios = [both[name] / both[other] for other in ("nearest, add", "CARAFE")]
            print(
                f"| {mode} | {name} | {forward:.1f} | {backward:.1f} | {1000 * both[name]:.1f} | {ratios[0]:.2f} "
                f"| {ratios[1]:.2f} | {memory:.1f} |"
            )


if __name__ == "__main__":
    main()
