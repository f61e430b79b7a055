"""Settings and fixtures shared by every test."""

import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

import perception  # noqa: F401  (makes `import mmcv.ops` work)

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY / "tools"))  # where tools find `_environment` when a test runs them in its own process


@pytest.fixture(autouse=True)
def _seeded_single_thread():
    """Every test starts from the same seed, and two workers never fight over the cores."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small built-in data set: 12 training and 4 validation images."""
    from perception.datasets.synthetic import shapes

    out = tmp_path_factory.mktemp("data") / "shapes"
    shapes.write(out, shapes.Params(num_train=12, num_val=4))
    return out


@pytest.fixture
def run_tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., SimpleNamespace]:
    """Runs ``tools/NAME.py`` in this process as if typed in the repository: returns its exit code and output."""

    def run(name: str, *args: object) -> SimpleNamespace:
        monkeypatch.chdir(REPOSITORY)
        monkeypatch.setattr(sys, "argv", [f"tools/{name}.py", *map(str, args)])
        capsys.readouterr()
        try:
            runpy.run_path(str(REPOSITORY / "tools" / f"{name}.py"), run_name="__main__")
            status = 0
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        if isinstance(status, str):  # what the interpreter does with sys.exit("text")
            return SimpleNamespace(code=1, out=printed.out, err=printed.err + status)
        return SimpleNamespace(code=status or 0, out=printed.out, err=printed.err)

    return run
