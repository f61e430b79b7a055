"""A small folder of a rig, and a model for it."""

import shutil

import pytest
import torch

from perception.datasets.synthetic import driving
from perception.inference.folder import Job, run

WIDTH, HEIGHT = 64, 36


@pytest.fixture(scope="session")
def streets(tmp_path_factory):
    """Two scenes of three frames."""
    out = tmp_path_factory.mktemp("rig") / "streets"
    driving.write(
        out, driving.Params(num_train=1, num_val=1, frames=3, width=WIDTH, samples=1, crowd=2, layout="rig", seed=5)
    )
    return out


@pytest.fixture
def rig(streets, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(streets, tmp_path / "rig")


@pytest.fixture
def model(tmp_path):
    """Makes config and checkpoint of the toy detector."""

    def make(width=WIDTH, height=HEIGHT, **settings):
        config = tmp_path / "toy.py"
        config.write_text(
            'custom_imports = dict(imports=["tests.inference.rigs.toy_detector", '
            '"perception.datasets.driving.transforms"])\n'
            f"model = dict(type='CameraFinder', **{settings})\n"
            "folder_kind = dict(type='Rigs')\n"
            f"crop = dict(type='CropResizeRig', size=({height}, {width}), top=8, heights=({height - 8},))\n"
            "pipeline = [dict(type='LoadRigImages'), crop, dict(type='PackRig')]\n"
            "test_dataloader = dict(dataset=dict(pipeline=pipeline))\n"
        )
        checkpoint = tmp_path / "toy.pth"
        torch.save({"state_dict": {"weight": torch.tensor(1.0)}}, checkpoint)
        return str(config), checkpoint

    return make


@pytest.fixture
def job(model, tmp_path):
    """Runs the toy detector over a folder."""

    def start(folder, out="out", pictures=False, patterns=(), overwrite=False, settings=None, **options):
        config, checkpoint = model(**(settings or {}))
        more = dict(workers=1, pictures=pictures, patterns=patterns, overwrite=overwrite)
        return run(Job(config, checkpoint, folder, tmp_path / out, options=options, **more))

    return start
