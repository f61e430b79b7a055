"""Native CPU kernels against the torch references, and against torchvision or torch where these have the operator.

Sizes are those of the recipes (or of one image, where a batch would take minutes). The contenders alternate; the table
shows medians.

    make ops
    python benchmarks/ops_cpu.py --threads 2 --rounds 7
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from ops_cases import GROUPS

from perception.engine.memory import keep_freed_memory
from perception.ops import _backend


def milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each contender (default: 7)")
    parser.add_argument("--only", default="", help="time only operators whose name contains this")
    args = parser.parse_args()
    if "cpu" not in _backend.devices():
        sys.exit(f"No native kernels to time: {_backend.reason()}.")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    print(f"torch {torch.__version__}, {args.threads} threads, medians of {args.rounds} rounds")
    print("| operator | reference, ms | native, ms | reference / native | torch(vision), ms | torch(vision) / native |")
    print("|---|---|---|---|---|---|")
    slower, operator = [], ""
    for group in GROUPS:
        for name, (run, peer, *_) in group(large=False, device="cpu").items():
            operator = name if name[0] != " " else operator
            if args.only not in operator:
                continue
            times: dict[str, list[float]] = {"reference": [], "native": [], "peer": []}
            for round_number in range(args.rounds + 1):
                for mode in ("reference", "native"):
                    with _backend.use(mode):
                        times[mode].append(milliseconds(run))
                if peer is not None:
                    times["peer"].append(milliseconds(peer))
                if round_number == 0:  # warms caches up
                    for values in times.values():
                        values.clear()
            reference, native = (statistics.median(times[mode]) for mode in ("reference", "native"))
            cells = [name.strip(), f"{reference:.2f}", f"{native:.2f}", f"{reference / native:.1f}"]
            other = statistics.median(times["peer"]) if peer is not None else None
            cells += ["", ""] if other is None else [f"{other:.2f}", f"{other / native:.1f}"]
            print("| " + " | ".join(cells) + " |", flush=True)
            if native > reference:
                slower.append(name.strip())
    if slower:
        sys.exit(f"Slower than the reference, so not worth keeping: {', '.join(slower)}.")


if __name__ == "__main__":
    main()
