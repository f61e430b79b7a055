"""What the process that hands out the work costs, when folders run on Ray (`--engine ray`).

    python benchmarks/ray_engine.py driver --actors 2                    # lines a second, from models that do nothing
    python benchmarks/ray_engine.py driver --actors 64 --milliseconds 218.5 30 5  # that sleep like a model
    python benchmarks/ray_engine.py folder --actors 2 --milliseconds 20  # whole runs: N actors against a local run
    python benchmarks/ray_engine.py folder --actors 4 --milliseconds 20 --sleep

`driver` has actors without torch, so that many fit on one machine; lines of ten boxes go to a journal. `folder` starts
the local run and the other in turn, on the same texts, and compares their bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import closing
from functools import partialmethod
from pathlib import Path

from perception.inference.engines.cluster import Needs, joined
from perception.inference.engines.crew import Crew
from perception.inference.journal import Journal
from perception.inference.loops import Outcome
from perception.inference.scan import Source

sys.path.insert(0, str(Path(__file__).parent))
from ray_kinds import sleeper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["driver", "folder"])
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument(
        "--milliseconds", type=float, nargs="+", default=[0.0], help="of the model for each source (default: 0)"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of a round, about (default: 10)")
    parser.add_argument("--sleep", action="store_true", help="the model waits instead of computing")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    # Actors find the modules beside this one.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    {"driver": driver, "folder": folder}[args.what](args)


def driver(args: argparse.Namespace) -> None:
    """Lines a second, and how much of a core the driver takes."""
    most = 5000 * args.seconds
    rounds = [
        (wait, int(min(most, args.actors * args.seconds * 1000 / wait if wait else most)))
        for wait in args.milliseconds
        for _ in range(args.rounds)
    ]
    total = max(count for _, count in rounds)
    sources = [Source(f"images/part-{n // 1000:04d}/{n:08d}.jpg", (Path("/"),), 0) for n in range(total)]
    with joined(None) as ray, tempfile.TemporaryDirectory() as place:
        crew = Crew(ray, args.actors, Needs(0.01, 0.0), lambda number: sleeper, None, 64, "images")
        with closing(crew), closing(Journal(Path(place) / "journal", lambda record: True)) as journal:
            began = time.perf_counter()
            crew.start(args.actors, args.actors)
            print(f"{args.actors} actors are there after {time.perf_counter() - began:.1f} s", flush=True)
            for wait, total in rounds:
                groups = [sources[start : start + 64] for start in range(0, total, 64)]
                seconds_each = {"seconds": wait / 1000}
                started, processor = time.perf_counter(), time.process_time()
                written = 0.0
                for outcome in crew.outcomes(groups, lambda group, each=seconds_each: each, lambda group: [group]):
                    assert isinstance(outcome, Outcome)
                    before = time.perf_counter()
                    journal.append(outcome.record)
                    written += time.perf_counter() - before
                seconds, used = time.perf_counter() - started, time.process_time() - processor
                possible = args.actors * 1000 / wait if wait else float("inf")
                print(
                    f"{wait:g} ms: {total} lines, {total / seconds:.0f} a second, {total / seconds / possible:.1%} of "
                    f"what the models could; driver {used / seconds:.0%} of a core, {used / total * 1e6:.0f} us "
                    f"a line, of which the journal {written / total * 1e6:.0f} us",
                    flush=True,
                )


def folder(args: argparse.Namespace) -> None:
    """Whole runs, local and with actors."""
    import torch

    from perception.inference.engines.local import Local
    from perception.inference.engines.ray_engine import RayEngine
    from perception.inference.folder import Job, run

    # A run begins with its first actor; here the time counts from when all are there.
    Crew.start = partialmethod(Crew.start, wait_for=args.actors)

    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        wait = args.milliseconds[0]
        for number in range(int(args.actors * args.seconds * 1000 / wait)):
            path = root / "texts" / f"{number // 1000:03d}" / f"{number:06d}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("word " * 200)
        (root / "config.py").write_text(
            'custom_imports = dict(imports=["ray_folder"])\nmodel = dict()\nfolder_kind = '
            f'dict(type="Clocks", seconds={wait / 1000}, busy={not args.sleep})\n'
        )
        torch.save({}, root / "weights.pth")

        def rate(name: str, engine: Local | RayEngine, folder: Path) -> float:
            job = Job(
                str(root / "config.py"), root / "weights.pth", folder, root / name, workers=1, device="cpu",
                engine=engine, overwrite=True,
            )  # fmt: skip
            report = run(job)
            return report.finished / report.seconds

        for number in range(args.rounds):
            local = rate("local", Local(), root / "texts")
            others = rate("ray", RayEngine(actors=args.actors, cpus=0.5), root / "texts")
            equal = (root / "local/predictions.jsonl").read_bytes() == (root / "ray/predictions.jsonl").read_bytes()
            print(
                f"round {number}: local {local:.1f}/s, {args.actors} actors {others:.1f}/s: "
                f"{others / local / args.actors:.1%} of {args.actors} x local; the bytes are "
                f"{'the same' if equal else 'others'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
