"""nerfstudio's commands over inputs that are broken: one sentence, a failure, and nothing half-written."""

import json
import shutil
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from nerfstudio.scripts import train as ns_train
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.scripts.exporter import ExportCameraPoses
from nerfstudio.scripts.render import DatasetRender

from perception.datasets.synthetic import radiance
from tests.projects.vqrf.breaking import Attack, Place, assert_one_sentence, cut
from tests.projects.vqrf.runs import small_config
from tests.projects.vqrf.test_broken_command import VQRF

pytestmark = pytest.mark.xdist_group("nerfstudio")

# `ns-train`: a case changes the settings of a run that is to go on from the stopped one.
TRAIN: dict[str, Callable[[Place, object], object]] = {}


def train_case(case):
    TRAIN[case.__name__.replace("_", " ")] = case
    return case


@train_case
def missing_scene(place, config):
    config.pipeline.datamanager.data = place.folder / "nothing"


@train_case
def missing_load_dir(place, config):
    config.load_dir = place.folder / "nothing"


@train_case
def load_dir_without_checkpoints(place, config):
    config.load_dir = place.stopped


@train_case
def load_step_that_was_not_saved(place, config):
    config.load_step = 12


@train_case
def load_step_without_load_dir(place, config):
    config.load_dir, config.load_step = None, 69


@train_case
def load_dir_and_load_checkpoint(place, config):
    config.load_checkpoint = config.load_dir / "step-000000069.ckpt"


@train_case
def missing_load_checkpoint(place, config):
    config.load_dir, config.load_checkpoint = None, place.folder / "nothing.ckpt"


@train_case
def cut_load_checkpoint(place, config):
    config.load_dir, config.load_checkpoint = None, config.load_dir / "step-000000069.ckpt"
    cut(config.load_checkpoint)


@train_case
def cut_checkpoint_in_load_dir(place, config):
    cut(config.load_dir / "step-000000069.ckpt")


@train_case
def checkpoint_of_text(place, config):
    (config.load_dir / "step-000000069.ckpt").write_text("no checkpoint")


@train_case
def checkpoint_of_weights(place, config):
    torch.save({"weight": torch.zeros(3)}, config.load_dir / "step-000000069.ckpt")


@train_case
def checkpoint_that_runs_a_program(place, config):
    torch.save({"step": Attack(place.folder / "executed")}, config.load_dir / "step-000000069.ckpt")


@train_case
def checkpoint_of_another_method(place, config):
    config.method_name = "vqrf-small"


@train_case
def longer_first_stage(place, config):
    config.pipeline.model.coarse.iters = 250


@train_case
def other_codebook(place, config):
    config.pipeline.model.compression.codebook_size = 32


@train_case
def other_grid(place, config):
    config.pipeline.model.fine.num_voxels = 20**3


@train_case
def other_rate(place, config):
    config.optimizers = deepcopy(config.optimizers)
    config.optimizers["k0"]["optimizer"].lr = 0.2


@train_case
def other_scene(place, config):
    radiance.write(
        place.folder / "other", radiance.Params(num_train=8, num_val=2, num_test=2, size=24, num_objects=2, seed=5)
    )
    config.pipeline.datamanager.data = place.folder / "other"


@train_case
def fewer_views(place, config):
    path = place.scene / "transforms_train.json"
    content = json.loads(path.read_text())
    content["frames"].pop()
    path.write_text(json.dumps(content))


@train_case
def moved_view(place, config):
    path = place.scene / "transforms_train.json"
    content = json.loads(path.read_text())
    content["frames"][3]["transform_matrix"][0][3] += 0.1
    path.write_text(json.dumps(content))


@train_case
def other_background(place, config):
    config.pipeline.datamanager.dataparser.alpha_color = "black"


@train_case
def other_depths(place, config):
    path = place.scene / "transforms_train.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "near": 1.0, "far": 7.0}))


@train_case
def several_devices(place, config):
    config.machine.device_type, config.machine.num_devices = "cuda", 2


@train_case
def output_dir_on_a_file(place, config):
    config.output_dir = place.file


# `ns-eval`, `ns-render`, `ns-export`: a case breaks a finished run.
TOOLS = {
    "ns-eval": lambda place: ComputePSNR(place.run / "config.yml", place.folder / "o.json"),
    "ns-render": lambda place: DatasetRender(place.run / "config.yml", place.folder / "o"),
    "ns-export": lambda place: ExportCameraPoses(place.run / "config.yml", place.folder),
}


RUNS = {
    "cut test image": lambda place: cut(place.scene / "test" / "r_001.png"),
    "cut checkpoint": lambda place: cut(place.checkpoint),
    "file beside the checkpoint": lambda place: place.checkpoint.with_name("notes.txt").write_text("mine"),
    "missing scene": lambda place: shutil.rmtree(place.scene),
    "missing training image": lambda place: (place.scene / "train" / "r_001.png").unlink(),
}


def test_enough_is_tried():
    assert len(VQRF) + len(TRAIN) + len(TOOLS) * len(RUNS) >= 90


@pytest.mark.parametrize("case", TRAIN)
def test_ns_train(case, place):
    config = small_config(place.scene, place.folder / "out")
    config.data = None  # as if given for the data manager
    config.load_dir = place.stopped / "nerfstudio_models"
    TRAIN[case](place, config)
    if config.machine.num_devices > 1 and torch.cuda.is_available():
        pytest.skip("there are several devices")
    (place.folder / "out").mkdir()
    assert_one_sentence(lambda: ns_train.main(config), place)


@pytest.mark.parametrize("case", RUNS)
@pytest.mark.parametrize("tool", TOOLS)
def test_tools_for_finished_runs(tool, case, place):
    RUNS[case](place)
    assert_one_sentence(TOOLS[tool](place).main, place)
