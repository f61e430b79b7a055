"""Builds the native operators on a CUDA machine, tests them and the systems' cores on the GPU and times both there.

Needs torch, a C++ compiler and the CUDA toolkit; torchvision adds peers to the table. One call does it all, and is
meant to take less than eight minutes.

    python tools/gpu_check.py --out gpu.md
"""

import argparse
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import _environment  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch  # noqa: E402

TOLERANCES = {
    torch.float32: dict(rtol=1e-4, atol=1e-5),
    torch.float64: dict(rtol=1e-9, atol=1e-10),
    torch.float16: dict(rtol=2e-3, atol=2e-3),
    torch.bfloat16: dict(rtol=2e-2, atol=2e-2),
}


def build() -> None:
    """Compile for the GPU that is present, in place of an older library."""
    os.environ["PERCEPTION_OPS"] = "reference"  # an older library need not be loaded, or complained of
    from perception.ops import build as builder

    started = time.monotonic()
    library = builder.build(cuda=True)
    print(f"Built {library} in {time.monotonic() - started:.0f} s.", flush=True)


def equality(device: str = "cuda") -> list[str]:
    """Native kernels against the references on a device; what differs."""
    from perception.ops import backend
    from tests.ops.case import KINDS, Sizes
    from tests.ops.native_cases import CASES, DIFFERENTIABLE, WITH_HALF, gradients, outputs

    problems, number = [], 0
    for name, make in CASES.items():
        dtypes = [torch.float32, torch.float64, *((torch.float16, torch.bfloat16) if name in WITH_HALF else ())]
        for dtype in dtypes:
            for kind in (*KINDS, *range(5)):
                number += 1
                try:
                    case = make(Sizes(kind, device), dtype)
                    with backend.use("native"):
                        ours = outputs(case) + (gradients(case) if name in DIFFERENTIABLE else [])
                    if dtype.itemsize == 2:  # the numbers that half types hold, computed with in float32
                        case = case._replace(inputs=tuple(x.float() for x in case.inputs))
                    with backend.use("reference"):
                        expected = outputs(case) + (gradients(case) if name in DIFFERENTIABLE else [])
                    for a, b in zip(ours, expected):
                        torch.testing.assert_close(a, b.to(a.dtype), **TOLERANCES[dtype], equal_nan=True)
                except Exception as error:  # anything that one case does must not hide the others
                    problems.append(f"{name}, {kind}, {dtype}: {' '.join(str(error).split())[:300]}")
    print(f"{number} comparisons with the references, {len(problems)} differ.", flush=True)
    return problems


def derivatives(device: str = "cuda") -> list[str]:
    """Gradients of the native kernels against differences, in float64; what differs."""
    from perception.ops import backend
    from tests.ops.case import Sizes
    from tests.ops.native_cases import CASES, DIFFERENTIABLE

    problems = []
    for name in DIFFERENTIABLE:
        case = CASES[name](Sizes(3, device), torch.float64)
        leaves = [x.detach().clone().requires_grad_() for x in case.inputs[: case.differentiable]]
        rest = case.inputs[case.differentiable :]
        try:
            with backend.use("native"):
                # Atomic additions: two runs differ in their last digits.
                torch.autograd.gradcheck(
                    lambda *x, case=case, rest=rest: case.function(*x, *rest),
                    leaves,
                    fast_mode=True,
                    atol=1e-4,
                    nondet_tol=1e-8,
                )
        except Exception as error:
            problems.append(f"gradient of {name}: {' '.join(str(error).split())[:300]}")
    print(f"{len(DIFFERENTIABLE)} gradients checked against differences, {len(problems)} differ.", flush=True)
    return problems


def systems(device: str = "cuda") -> list[str]:
    """Loss and gradients of every system's core on a device against those on the CPU; what differs."""
    from system_cases import cores, gradients

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    problems, names = [], []
    for name, core in cores(large=False):
        names.append(name)
        try:
            for ours, expected in zip(gradients(core, device), gradients(core, "cpu"), strict=True):
                scale = float(expected.abs().max())
                torch.testing.assert_close(ours.cpu(), expected, rtol=2e-3, atol=2e-3 * scale)
        except Exception as error:
            problems.append(f"system {name}: {' '.join(str(error).split())[:300]}")
    print(f"Cores of {', '.join(names)} on {device} and on the CPU, {len(problems)} differ.", flush=True)
    return problems


def step_times(repeats: int) -> list[str]:
    """Lines of a table: forward and backward of every system's core at the sizes of its recipe."""
    from system_cases import cores, gradients

    lines = ["", "| system | forward and backward, ms | peak memory, MiB |", "|---|---|---|"]
    for name, core in cores(large=True):
        torch.cuda.reset_peak_memory_stats()
        took = milliseconds(lambda core=core: gradients(core, "cuda"), min(repeats, 5))
        lines.append(f"| {name} | {took:.1f} | {torch.cuda.max_memory_allocated() / 2**20:.0f} |")
        print(lines[-1], flush=True)
        core.module.to("cpu")
        torch.cuda.empty_cache()
    return lines


def milliseconds(run: Callable[[], object], repeats: int) -> float:
    """Median time of a call on the GPU."""
    for _ in range(2):
        run()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def ceilings() -> tuple[float, float]:
    """Bytes per second of a copy (read and written), and float32 operations per second of a matrix product."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    copy = milliseconds(lambda: target.copy_(source), 10)
    a = torch.randn(8192, 8192, device="cuda")
    torch.backends.cuda.matmul.allow_tf32 = False
    product = milliseconds(lambda: a @ a, 5)
    return 2 * 4 * 2**28 / copy * 1e3, 2 * 8192**3 / product * 1e3


def table(repeats: int, deadline: float, out: Path | None, title: str) -> None:
    """Prints the table of times, and writes it to a file; `torch.compile` is left out after the deadline."""
    from ops_cases import rows

    from perception.ops import backend

    bandwidth, arithmetic = ceilings()
    lines = [
        f"Ceilings measured in the same run: copy {bandwidth / 1e9:.0f} GB/s, float32 matrix product "
        f"{arithmetic / 1e12:.1f} TFLOP/s.",
        "",
        "| operator | reference, ms | compiled reference, ms | torch(vision), ms | native, ms | reference / native | "
        "achieved | of the ceiling |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name, timing in rows(large=True, device="cuda"):
        with backend.use("native"):
            native = milliseconds(timing.run, repeats)
        with backend.use("reference"):
            reference = milliseconds(timing.run, min(repeats, 5))
            compiled = ""
            if timing.compiles and time.monotonic() < deadline:
                try:
                    torch._dynamo.reset()
                    compiled = f"{milliseconds(torch.compile(timing.run), min(repeats, 5)):.3f}"
                except Exception as error:  # whatever the compiler cannot do is a result, not an end
                    compiled = f"fails ({type(error).__name__})"
        peer = f"{milliseconds(timing.peer, repeats):.3f}" if timing.peer is not None else ""
        bound, limit = timing.bound(bandwidth, arithmetic)
        share = 1e3 * bound / native
        if limit == "memory":
            achieved = f"{timing.bytes / native / 1e6:.0f} GB/s"
        else:
            achieved = f"{timing.operations / native / 1e9:.2f} TFLOP/s"
        cells = [name, f"{reference:.3f}", compiled, peer, f"{native:.3f}", f"{reference / native:.1f}"]
        lines.append("| " + " | ".join([*cells, achieved, f"{share:.0%}"]) + " |")
        print(lines[-1], flush=True)
        if out is not None:  # so that a run that is cut off leaves what it has
            out.write_text(title + "\n".join(lines) + "\n")
        torch.cuda.empty_cache()


def main() -> None:
    """Run the parts in turn; the exit status says whether all kernels agree with their references."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the table to this Markdown file")
    parser.add_argument("--repeats", type=int, default=20, help="timed calls of each kernel (default: 20)")
    parser.add_argument("--no-build", action="store_true", help="take the library that is there")
    parser.add_argument("--no-timing", action="store_true", help="only build and test")
    parser.add_argument(
        "--compile-budget", type=float, default=180, help="seconds after which torch.compile is left out (default: 180)"
    )
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("No CUDA device: gpu_check builds, tests and times the kernels on the GPU that is present.")
    logging.getLogger("torch").setLevel(logging.ERROR)
    sys.stdout.flush()
    started = time.monotonic()
    device = torch.cuda.get_device_name()
    print(f"{device}, torch {torch.__version__}, CUDA {torch.version.cuda}", flush=True)
    if not args.no_build:
        build()
        del os.environ["PERCEPTION_OPS"]
        os.execv(sys.executable, [sys.executable, *sys.argv, "--no-build"])  # a process that has not loaded anything
    from perception.ops import backend

    if "cuda" not in backend.devices():
        sys.exit(f"No CUDA kernels: {backend.reason()}.")
    problems = equality() + derivatives() + systems()
    print("\n".join(problems))
    if problems:
        print("After an illegal access on the GPU all later cases fail: look at the first problem.")
    if not args.no_timing:
        title = f"# GPU figures\n\n`python tools/gpu_check.py` on {device}, torch {torch.__version__}.\n\n"
        steps = step_times(args.repeats)
        title += "\n".join(steps) + "\n\n"
        table(args.repeats, time.monotonic() + args.compile_budget, args.out, title)
    print(f"Done in {time.monotonic() - started:.0f} s.")
    if problems:
        sys.exit(f"{len(problems)} results differ from their references.")


if __name__ == "__main__":
    main()
