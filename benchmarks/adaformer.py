"""Frames a second of SiamCUT and MoCUT with one target and with several, and what a training step takes.

Both recipes at their published sizes, on random weights and a cloud of 30 000 points around each target. Native and
reference operators alternate. Freed memory is kept, as the tools do; --give-back leaves it to the system. With one
thread it is processor time that counts, which a busy machine changes less. With --profile, the operators of a training
step by their own time.

    python benchmarks/adaformer.py --threads 2 --rounds 3
    python benchmarks/adaformer.py --threads 1 --profile
"""

import argparse
import multiprocessing
import statistics
import time

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from perception.engine.memory import keep_freed_memory, peak_of
from perception.ops import backend

RECIPES = {"SiamCUT": "configs/adaformer.py", "MoCUT": "configs/adaformer/mocut_kitti.py"}
POINTS = 30_000


def clock() -> float:
    """Seconds."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def tracker(name: str) -> torch.nn.Module:
    init_default_scope("mmengine")
    torch.manual_seed(0)
    return MODELS.build(Config.fromfile(RECIPES[name]).model)


def frames(name: str, targets: int, mode: str, rounds: int) -> float:
    """Seconds a frame."""
    model = tracker(name).eval()
    boxes = torch.tensor([[20.0 * i, 5, -1, 3.9, 1.6, 1.5, 0.3] for i in range(targets)], dtype=torch.float64)
    near = torch.cat([torch.randn(POINTS // targets, 3) * torch.tensor([3.0, 3, 0.5]) + b[:3].float() for b in boxes])
    seconds = []
    with backend.use(mode):
        for number in range(rounds + 1):
            followed = [model.begin(near, box) for box in boxes]
            start = clock()
            model.step(followed, [near] * targets)
            if number:
                seconds.append(clock() - start)
    return statistics.median(seconds)


def batch(name: str, size: int) -> dict:
    box = dict(box=torch.zeros(size, 4), size=torch.tensor([[1.6, 3.9, 1.5]]).expand(size, 3))
    if name == "SiamCUT":
        template, search = (torch.randn(size, count, 6) for count in (512, 1024))
        targets = dict(**box, on_target=torch.randint(0, 2, (size, 1024)).float())
        return dict(inputs=dict(template=template, search=search), targets=targets)
    zeros, cloud = torch.zeros(size, 4), torch.rand(size, 2048, 9)
    targets = dict(previous_box=zeros, motion=zeros, on_target=torch.randint(0, 2, (size, 2048)), box_cloud=cloud)
    return dict(inputs=dict(points=torch.randn(size, 2048, 5), box_cloud=cloud), targets=dict(**box, **targets))


def training_step(name: str, size: int, mode: str, profile: bool = False) -> tuple[float, float, str]:
    """Seconds, MiB beyond weights and batch, and the table of a profile."""
    model, samples, table = tracker(name).train(), batch(name, size), ""

    def step() -> None:
        sum(model(**samples, mode="loss").values()).backward()

    with backend.use(mode):
        peak = peak_of(step)
        start = clock()
        if profile:
            with torch.profiler.profile() as record:
                step()
            table = record.key_averages().table(sort_by="self_cpu_time_total", row_limit=18, max_name_column_width=40)
        else:
            step()
    return clock() - start, peak, table


def begin(threads: int, give_back: bool) -> None:
    """What a process does first."""
    torch.set_num_threads(threads)
    if not give_back:
        keep_freed_memory()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--targets", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--batch", type=int, default=8, help="samples of the training step")
    parser.add_argument("--give-back", action="store_true", help="freed memory goes back to the system")
    parser.add_argument("--profile", action="store_true", help="only a profile of a training step")
    args = parser.parse_args()
    modes = ["native", "reference"] if "cpu" in backend.devices() else ["reference"]
    # Peaks of memory are a process's: each measurement has its own.
    with multiprocessing.get_context("spawn").Pool(1, begin, (args.threads, args.give_back), 1) as pool:
        for name in RECIPES:
            for targets in () if args.profile else args.targets:
                for mode in modes:
                    seconds = pool.apply(frames, (name, targets, mode, args.rounds))
                    print(f"{name}, {targets} targets, {mode:9}: {1 / seconds:6.2f} frames/s", flush=True)
            for mode in modes[:1] if args.profile else modes:
                seconds, peak, table = pool.apply(training_step, (name, args.batch, mode, args.profile))
                words = f"{seconds:6.2f} s, peak {peak:.0f} MiB"
                print(f"{name}, step of {args.batch}, {mode:9}: {words}\n{table}", flush=True)


if __name__ == "__main__":
    main()
