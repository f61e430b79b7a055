"""Memory of a run over a long video of small pictures, a few steps a frame: frames must not pile up in it.

python -m tests.projects.streamrf.long_video --frames 300
"""

import argparse
import math
import tempfile
from pathlib import Path

from tests.projects.streamrf import videos

PLACES = (1, 10, 50, 100, 150, 200, 250)
"""Frames after which the memory is printed; and the last one."""


def resident() -> float:
    """Memory of this process in MiB, as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def main() -> None:
    """Write a video, train on it, and print the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300)
    frames = parser.parse_args().frames
    videos.WIDTH, videos.HEIGHT, videos.FOCAL = 160, 120, 160.0
    pixels = frames * len(videos.PLACES) * videos.WIDTH * videos.HEIGHT * 3
    with tempfile.TemporaryDirectory() as folder:
        data = videos.write_video(Path(folder, "video"), frames, lambda frame: 2 + 2 * math.sin(frame / 6))
        trainer = videos.make_trainer(videos.small_config(data, Path(folder, "runs"), checkpoint_every=50))
        report = trainer.pipeline.model.report

        def told(run, frame, *rest):
            report(run, frame, *rest)
            if frame in (*PLACES, frames - 1):
                print(f"frame {frame}: {resident():.1f} MiB", flush=True)

        trainer.pipeline.model.report = told
        trainer.train()
    print(f"all pictures together: {pixels / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
