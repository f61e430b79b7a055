"""Native CPU kernels against the torch references, and against torchvision or torch where these have the operator.

Sizes are those of the recipes (or of one image, where a batch would take minutes). The contenders alternate; the table
shows medians. The bound is the time of the bytes that must be moved, or of the operations that must be made, at the
speed of a copy or a matrix product; what the caches hold may be read faster.

    make ops
    python benchmarks/ops_cpu.py --threads 2 --rounds 7
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from ops_cases import rows

from perception.engine.memory import keep_freed_memory
from perception.ops import backend


def milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def ceilings() -> tuple[float, float]:
    """Bytes per second of a copy (read and written), and float32 operations per second of a matrix product."""
    source, a = torch.ones(2**26), torch.randn(2048, 2048)
    target = torch.empty_like(source)
    copy = min(milliseconds(lambda: target.copy_(source)) for _ in range(5))
    product = min(milliseconds(lambda: a @ a) for _ in range(5))
    return 2 * 4 * 2**26 / copy * 1e3, 2 * 2048**3 / product * 1e3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each contender (default: 7)")
    parser.add_argument("--only", default="", help="time only operators whose name contains this")
    args = parser.parse_args()
    if "cpu" not in backend.devices():
        sys.exit(f"No native kernels to time: {backend.reason()}.")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    print(f"torch {torch.__version__}, {args.threads} threads, medians of {args.rounds} rounds")
    bandwidth, arithmetic = ceilings()
    print(f"copy {bandwidth / 1e9:.1f} GB/s, float32 matrix product {arithmetic / 1e9:.0f} GFLOP/s")
    print(
        "| operator | reference, ms | native, ms | reference / native | torch(vision), ms | torch(vision) / native | "
        "bound, ms |"
    )
    print("|---|---|---|---|---|---|---|")
    slower = []
    for name, timing in rows(large=False, device="cpu"):
        if args.only not in name:
            continue
        times: dict[str, list[float]] = {"reference": [], "native": [], "peer": []}
        for round_number in range(args.rounds + 1):
            for mode in ("reference", "native"):
                with backend.use(mode):
                    times[mode].append(milliseconds(timing.run))
            if timing.peer is not None:
                times["peer"].append(milliseconds(timing.peer))
            if round_number == 0:  # warms caches up
                for values in times.values():
                    values.clear()
        reference, native = (statistics.median(times[mode]) for mode in ("reference", "native"))
        cells = [name, f"{reference:.2f}", f"{native:.2f}", f"{reference / native:.1f}"]
        other = statistics.median(times["peer"]) if timing.peer is not None else None
        cells += ["", ""] if other is None else [f"{other:.2f}", f"{other / native:.1f}"]
        bound, limit = timing.bound(bandwidth, arithmetic)
        print("| " + " | ".join([*cells, f"{1e3 * bound:.2f} {limit}"]) + " |", flush=True)
        if native > reference:
            slower.append(name)
    if slower:
        sys.exit(f"Slower than the reference, so not worth keeping: {', '.join(slower)}.")


if __name__ == "__main__":
    main()
