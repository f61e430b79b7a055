"""How much memory a run of tools/infer.py takes, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.inference.conftest import make_image

_COMMAND = (
    "import re, runpy, sys; sys.path.append('tools'); sys.argv = ['tools/infer.py', *sys.argv[1:]]\n"
    "try: runpy.run_path('tools/infer.py', run_name='__main__')\n"
    "except SystemExit as end:\n"
    "    print('peak', re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1], end.code)"
)


def peak_of_infer(*arguments: object) -> int:
    """Bytes that the process held at most."""
    command = [sys.executable, "-c", _COMMAND, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    _, peak, code = done.stdout.splitlines()[-1].split()
    assert code == "0"
    return int(peak) * 1024


def peaks_of_sides(config: Path, checkpoint: Path, root: Path, *options: str) -> dict[int, int]:
    """Those of a JPEG of 4096 pixels a side and of one of 16384, by side; results are in `root/outSIDE`."""
    pyvips = pytest.importorskip("pyvips")
    patch = pyvips.Image.new_from_array(make_image(5, 512, 512))
    peaks = {}
    for side in (4096, 16384):
        folder = root / str(side)
        folder.mkdir()
        patch.replicate(side // 512, side // 512).write_to_file(str(folder / "scene.jpg"))
        peaks[side] = peak_of_infer(
            config, checkpoint, folder, "--out", root / f"out{side}", *options, "--device", "cpu"
        )
    return peaks
