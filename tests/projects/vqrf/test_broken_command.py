"""The command `vqrf` over inputs that are broken: one sentence, a failure, and nothing half-written."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perception.datasets.synthetic import radiance
from projects.vqrf import cli
from tests.projects.vqrf.breaking import Attack, Place, assert_one_sentence, cut, flip

pytestmark = pytest.mark.xdist_group("nerfstudio")

# A case gives the words of the command line.
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


@pytest.mark.parametrize("case", VQRF)
def test_vqrf(case, place, monkeypatch):
    words = [str(word) for word in VQRF[case](place)]
    monkeypatch.setattr(sys, "argv", ["vqrf", *words])
    assert_one_sentence(cli.main, place)
