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
sys.path.append(str(REPOSITORY / "tools" / "dataset_converters"))  # and `_splitting`


# Modules all of whose tests are slow: they train, start processes that import mmdet, build stock models, or import
# nerfstudio. `make test-fast` does not even import them.
SLOW_MODULES = (
    "test_commands.py",
    "test_documented_commands.py",
    "test_startup.py",
    "datasets/test_coco.py",
    "datasets/test_voc.py",
    "engine/test_data_check*.py",
    "engine/test_errors.py",
    "engine/test_make_config.py",
    "engine/test_worker_errors.py",
    "studio/*.py",
    "inference/*.py",
    "inference/*/*.py",
    "tools/*.py",
    "ops/test_native.py",
    "ops/test_stock_*.py",
    "projects/*/test_adapters.py",
    "projects/*/test_broken_*.py",
    "projects/*/test_detector.py",
    "projects/*/test_editing.py",
    "projects/*/test_learning.py",
    "projects/*/test_method.py",
    "projects/*/test_other_data.py",
    "projects/*/test_patches.py",
    "projects/*/test_recipes.py",
    "projects/*/test_training.py",
    "projects/streamrf/test_toy_stream.py",
)


def _is_slow(path: Path) -> bool:
    return any(path.match(f"tests/{pattern}") for pattern in SLOW_MODULES)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves slow modules out of `-m "not slow"`, without importing them."""
    return True if config.option.markexpr == "not slow" and _is_slow(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of slow modules."""
    for item in items:
        if _is_slow(item.path):
            item.add_marker(pytest.mark.slow)


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


@pytest.fixture(scope="session")
def driving_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small built-in driving set in nuScenes' format: a scene of three frames to train and one to validate."""
    from perception.datasets.synthetic import driving
    from tests.datasets.driving_set import PARAMS

    out = tmp_path_factory.mktemp("data") / "driving"
    driving.write(out, PARAMS)
    return out


@pytest.fixture
def run_tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., SimpleNamespace]:
    """Runs ``tools/NAME.py`` in this process as if typed in the repository: returns its exit code and output."""

    def run(name: str, *args: object) -> SimpleNamespace:
        monkeypatch.chdir(REPOSITORY)
        monkeypatch.setattr(sys, "argv", [f"tools/{name}.py", *map(str, args)])
        # A tool changes them, for the process that it otherwise has to itself.
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        capsys.readouterr()
        # A process of its own has no loggers and no scope yet; an earlier test's loggers are closed.
        for module, kept in (("mmengine.logging", "MMLogger"), ("mmengine.registry", "DefaultScope")):
            if module in sys.modules:
                getattr(sys.modules[module], kept)._instance_dict.clear()
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
