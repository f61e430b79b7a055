"""Every command of a radiance method over inputs that are broken: one sentence, a failure, and nothing half-written."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from nerfstudio.scripts import train as ns_train
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.scripts.exporter import ExportCameraPoses
from nerfstudio.scripts.render import DatasetRender
from PIL import Image

from perception.datasets.synthetic import radiance
from projects.vqrf import cli
from tests.projects.vqrf.runs import small_config

pytestmark = pytest.mark.xdist_group("nerfstudio")


@dataclass
class Place:
    """A folder in which a case may break what it likes."""

    folder: Path
    scene: Path
    run: Path  # of a finished run, with its file
    stopped: Path  # of one that was stopped in its second stage

    @property
    def file(self) -> Path:
        return self.run / "field.vqrf"

    @property
    def checkpoint(self) -> Path:
        (path,) = (self.run / "nerfstudio_models").iterdir()
        return path

    def write(self, name: str, content: bytes | str | dict | list) -> Path:
        path = self.folder / name
        if isinstance(content, (dict, list)):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


@pytest.fixture
def place(scene, finished, stopped, tmp_path) -> Place:
    shutil.copytree(scene, tmp_path / "scene")
    runs = [
        copy_run(trainer, tmp_path / name, tmp_path / "scene") for trainer, name in ((finished, "a"), (stopped, "b"))
    ]
    return Place(tmp_path, tmp_path / "scene", *runs)


def copy_run(trainer, out: Path, scene: Path) -> Path:
    """A run that nerfstudio's commands find in another place, with another scene."""
    config = deepcopy(trainer.config)
    config.output_dir, config.pipeline.datamanager.data = out, scene
    folder = config.get_base_dir()
    shutil.copytree(trainer.base_dir, folder)
    (folder / "config.yml").write_text(yaml.dump(config))
    return folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


class Attack:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


# vqrf: a case gives the words of the command line

VQRF: dict[str, Callable[[Place], list]] = {}
POSE = radiance.cameras_of(radiance.Params())["test"][0]
FRAME = {"camera_to_world": POSE.reshape(-1).tolist(), "fov": 40, "aspect": 1.0}
CROP = {"crop_center": [0, 0, 0], "crop_scale": [1, 1, 1], "crop_bg_color": {"r": 0, "g": 0, "b": 0}}


def vqrf(command: str):
    def add(case):
        VQRF[f"{command} {case.__name__}".replace("_", " ")] = lambda place: [command, *case(place)]
        return case

    return add


def damaged_file(name: str, damage: Callable[[Path], object]) -> None:
    def words(place: Place) -> list:
        damage(place.file)
        return [place.file]

    VQRF[f"info {name}"] = lambda place: ["info", *words(place)]
    VQRF[f"render {name}"] = lambda place: ["render", *words(place), "--data", place.scene, "--out", place.folder / "o"]


for name, damage in {
    "cut file": cut,
    "flipped bit": flip,
    "empty file": lambda path: path.write_bytes(b""),
    "text for a file": lambda path: path.write_text("no field"),
    "missing file": Path.unlink,
    "folder for a file": lambda path: (path.unlink(), path.mkdir()),
}.items():
    damaged_file(name, damage)


def pt_file(name: str, make: Callable[[Place], Path]) -> None:
    VQRF[f"render {name}"] = lambda place: ["render", make(place), "--data", place.scene, "--out", place.folder / "o"]


def saved(content: object, **kwargs) -> Callable[[Place], Path]:
    def make(place: Place) -> Path:
        torch.save(content, place.folder / "field.pt", **kwargs)
        return place.folder / "field.pt"

    return make


pt_file("missing pt", lambda place: place.folder / "field.pt")
pt_file("pt of bytes", lambda place: place.write("field.pt", bytes(range(100, 200))))
pt_file("pt that takes from an empty stack", lambda place: place.write("field.pt", b"e."))
pt_file("empty pt", lambda place: place.write("field.pt", b""))
pt_file("pt of a list", saved([torch.zeros(3)]))
pt_file("pt of weights", saved({"weight": torch.zeros(3)}))
pt_file("pt without settings", saved({"state_dict": {"xyz_min": torch.zeros(3)}, "render": {}, "field": {}}))
pt_file("pt that runs a program", lambda place: saved({"state_dict": Attack(place.folder / "executed")})(place))


def path_case(name: str, content: dict | list | str) -> None:
    def words(place: Place) -> list:
        path = place.write("path.json", content)
        return ["render", place.file, "--camera-path", path, "--out", place.folder / "o"]

    VQRF[f"render camera path: {name}"] = words


def camera_path(**changes) -> dict:
    whole = {"camera_type": "perspective", "render_height": 8, "render_width": 8, "camera_path": [FRAME], "crop": None}
    return {**whole, **changes}


def pose_changed(change: Callable[[np.ndarray], object]) -> dict:
    pose = POSE.copy()
    change(pose)
    return camera_path(camera_path=[FRAME, {**FRAME, "camera_to_world": pose.reshape(-1).tolist()}])


path_case("text", "no path")
path_case("a list", [1, 2])
path_case("nothing", {})
path_case("no poses", camera_path(camera_path=[]))
path_case("12 numbers", camera_path(camera_path=[{**FRAME, "camera_to_world": POSE[:3].reshape(-1).tolist()}]))
path_case("words", camera_path(camera_path=[{**FRAME, "camera_to_world": ["a"] * 16}]))
path_case("no matrix", camera_path(camera_path=[{"fov": 40}]))
path_case("a frame of numbers", camera_path(camera_path=[3]))
path_case("not a number", pose_changed(lambda pose: pose.__setitem__((0, 3), np.nan)))
path_case("mirrored", pose_changed(lambda pose: pose.__setitem__((slice(3), 0), -pose[:3, 0])))
path_case("sheared", pose_changed(lambda pose: pose.__setitem__((0, 0), pose[0, 0] + 0.3)))
path_case("no field of view", camera_path(camera_path=[{"camera_to_world": FRAME["camera_to_world"]}]))
path_case("field of view 0", camera_path(camera_path=[{**FRAME, "fov": 0}]))
path_case("unknown camera", camera_path(camera_type="pushbroom"))
path_case("no height", camera_path(render_height=None))
path_case("half a pixel", camera_path(render_width=7.5))
path_case("crop without a size", camera_path(crop={**CROP, "crop_scale": [1, 0, 1]}))
path_case("crop without a colour", camera_path(crop={**CROP, "crop_bg_color": None}))
path_case("crop of words", camera_path(crop="all"))


def render_words(place: Place, *more) -> list:
    return [place.file, "--data", place.scene, "--out", place.folder / "o", *more]


@vqrf("render")
def no_camera_path(place):
    return [place.file, "--camera-path", place.folder / "path.json", "--out", place.folder / "o"]


@vqrf("render")
def no_scene(place):
    return [place.file, "--data", place.folder / "nothing", "--out", place.folder / "o"]


@vqrf("render")
def scene_of_no_layout(place):
    (place.folder / "empty").mkdir()
    return [place.file, "--data", place.folder / "empty", "--out", place.folder / "o"]


@vqrf("render")
def split_that_is_missing(place):
    for split in ("val", "test"):
        (place.scene / f"transforms_{split}.json").unlink()
    return render_words(place)


@vqrf("render")
def cut_transforms(place):
    cut(place.scene / "transforms_test.json")
    return render_words(place)


@vqrf("render")
def frames_of_nothing(place):
    place.write("scene/transforms.json", {"fl_x": 20, "fl_y": 20, "cx": 12, "cy": 12, "w": 24, "h": 24, "frames": None})
    return [place.file, "--data", place.scene / "transforms.json", "--out", place.folder / "o"]


@vqrf("render")
def missing_image(place):
    (place.scene / "test" / "r_001.png").unlink()
    return render_words(place)


@vqrf("render")
def cut_image(place):
    cut(place.scene / "test" / "r_001.png")
    return render_words(place)


@vqrf("render")
def image_of_another_size(place):
    Image.new("RGBA", (20, 24)).save(place.scene / "test" / "r_001.png")
    return render_words(place)


@vqrf("render")
def unknown_device(place):
    return render_words(place, "--device", "tpu")


@vqrf("render")
def device_without_memory(place):
    return render_words(place, "--device", "meta")


@vqrf("render")
def out_on_a_file(place):
    return [place.file, "--data", place.scene, "--out", place.file]


@vqrf("render")
def out_below_a_file(place):
    return [place.file, "--data", place.scene, "--out", place.file / "frames"]


@vqrf("pack")
def no_run(place):
    return [place.folder / "nothing"]


@vqrf("pack")
def run_without_config(place):
    (place.run / "config.yml").unlink()
    return [place.run]


@vqrf("pack")
def config_of_text(place):
    (place.run / "config.yml").write_text("just text")
    return [place.run]


@vqrf("pack")
def config_that_is_no_yaml(place):
    (place.run / "config.yml").write_text("a: [1, 2\nb: }")
    return [place.run]


@vqrf("pack")
def config_of_a_lost_class(place):
    (place.run / "config.yml").write_text("!!python/object:projects.lost.Config {}\n")
    return [place.run]


@vqrf("pack")
def unfinished_run(place):
    return [place.stopped]


@vqrf("pack")
def no_checkpoint(place):
    place.checkpoint.unlink()
    return [place.run, "--out", place.folder / "o.vqrf"]


@vqrf("pack")
def cut_checkpoint(place):
    cut(place.checkpoint)
    return [place.run, "--out", place.folder / "o.vqrf"]


@vqrf("pack")
def foreign_checkpoint(place):
    torch.save({"weight": torch.zeros(3)}, place.checkpoint)
    return [place.run, "--out", place.folder / "o.vqrf"]


@vqrf("pack")
def pack_out_on_a_folder(place):
    return [place.run, "--out", place.folder]


@vqrf("pack")
def pack_out_below_nothing(place):
    return [place.run, "--out", place.folder / "nowhere" / "o.vqrf"]


@vqrf("import")
def nothing_to_import(place):
    return [place.folder / "nothing.tar", "--out", place.folder / "o.pt"]


@vqrf("import")
def empty_folder(place):
    (place.folder / "saved").mkdir()
    return [place.folder / "saved", "--out", place.folder / "o.vqrf"]


@vqrf("import")
def cut_tar(place):
    torch.save({"model_kwargs": {}, "model_state_dict": {}}, place.folder / "fine.tar")
    cut(place.folder / "fine.tar")
    return [place.folder / "fine.tar", "--out", place.folder / "o.pt"]


@vqrf("import")
def tar_of_weights(place):
    torch.save({"weight": torch.zeros(3)}, place.folder / "fine.tar")
    return [place.folder / "fine.tar", "--out", place.folder / "o.pt"]


@vqrf("import")
def tar_that_runs_a_program(place):
    torch.save({"model_kwargs": Attack(place.folder / "executed")}, place.folder / "fine.tar")
    return [place.folder / "fine.tar", "--out", place.folder / "o.pt"]


# ns-train: a case changes the settings of a run that is to go on from the stopped one

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


# ns-eval, ns-render, ns-export: a case breaks a finished run

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


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def assert_one_sentence(command: Callable[[], object], place: Place) -> None:
    before = files_of(place.folder)
    with pytest.raises(SystemExit) as stop:
        command()
    message = stop.value.code
    assert isinstance(message, str), f"exit status {message!r} without a sentence"
    assert message.startswith("error: ")
    assert "\n" not in message
    assert 20 < len(message) < 700
    assert "Traceback" not in message
    assert "weights_only" not in message
    assert files_of(place.folder) == before


def test_enough_is_tried():
    assert len(VQRF) + len(TRAIN) + len(TOOLS) * len(RUNS) >= 90


@pytest.mark.parametrize("case", VQRF)
def test_vqrf(case, place, monkeypatch):
    words = [str(word) for word in VQRF[case](place)]
    monkeypatch.setattr(sys, "argv", ["vqrf", *words])
    assert_one_sentence(cli.main, place)


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
