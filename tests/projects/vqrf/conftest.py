"""A scene and runs that the tests of this folder share, and copies of them to break."""

import shutil
from pathlib import Path

import pytest

from perception.datasets.synthetic import radiance
from tests.projects.vqrf.breaking import Place, copy_run
from tests.projects.vqrf.runs import small_config, train


@pytest.fixture(scope="session")
def scene(tmp_path_factory) -> Path:
    """A scene of ten small views in Blender layout."""
    out = tmp_path_factory.mktemp("data") / "scene"
    radiance.write(out, radiance.Params(num_train=8, num_val=2, num_test=2, size=24, num_objects=2))
    return out


@pytest.fixture(scope="session")
def finished(scene, tmp_path_factory):
    """A run from beginning to end."""
    return train(small_config(scene, tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="session")
def stopped(scene, tmp_path_factory):
    """A run that was stopped in its second stage."""
    config = small_config(scene, tmp_path_factory.mktemp("stopped"))
    config.max_num_iterations = 70
    return train(config)


@pytest.fixture
def place(scene, finished, stopped, tmp_path) -> Place:
    shutil.copytree(scene, tmp_path / "scene")
    runs = [
        copy_run(trainer, tmp_path / name, tmp_path / "scene") for trainer, name in ((finished, "a"), (stopped, "b"))
    ]
    return Place(tmp_path, tmp_path / "scene", *runs)
