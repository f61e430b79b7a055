"""A small scene in three layouts, and copies of it to change."""

import shutil

import pytest

from perception.datasets.synthetic import radiance


@pytest.fixture(scope="session")
def scene_layouts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    for layout in ("blender", "nerfstudio", "colmap"):
        params = radiance.Params(num_train=6, num_val=2, num_test=3, size=20, num_objects=2, layout=layout)
        radiance.write(folder / layout, params)
    return folder


@pytest.fixture
def copy(scene_layouts, tmp_path):
    return lambda layout: shutil.copytree(scene_layouts / layout, tmp_path / layout)
