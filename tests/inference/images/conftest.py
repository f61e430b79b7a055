"""What tests of pyramids of images share."""

import pytest

from perception.inference.images import pyramid_kind as kind_module
from tests.inference.conftest import ROTATED, _write
from tests.inference.images.pyramids import Finder


@pytest.fixture
def finder(monkeypatch):
    made = []

    def build(*arguments):
        made.append(Finder(*arguments))
        return made[-1]

    monkeypatch.setattr(kind_module, "Detector", build)
    return made


@pytest.fixture(scope="module")
def pyramid_files(tmp_path_factory):
    """A tiny rotated detector whose recipe asks for pyramids."""
    folder_kind = 'folder_kind = dict(type="PyramidImages", patch=128, gap=24)\n'
    return _write(tmp_path_factory.mktemp("pyramid"), ROTATED + folder_kind)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scenes").mkdir()
    return tmp_path / "scenes"
