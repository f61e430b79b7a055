"""The look at a scene before a run: files of layouts that data parsers cannot use."""

from pathlib import Path

import pytest
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.minimal_dataparser import MinimalDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from perception.studio.errors import SceneError
from tests.studio.looked_at import edit, look

pytestmark = pytest.mark.xdist_group("nerfstudio")


PARSER_FAULTS = {
    "null frames": (lambda c: c.update(frames=None), "lists no frames"),
    "no focal length": (lambda c: (c.pop("fl_x"), c.pop("fl_y")), r"states no focal length \(fl_x, fl_y\)"),
    "angle": (
        lambda c: (c.pop("fl_x"), c.pop("fl_y"), c.update(camera_angle_x=0.7)),
        "states its focal length as an angle .* name `instant-ngp-data` instead",
    ),
    "no size": (lambda c: c.pop("w"), "states no w, which"),
    "model": (lambda c: c.update(camera_model="FOV"), "camera_model 'FOV'; known are SIMPLE_PINHOLE, PINHOLE"),
    "two models": (lambda c: c["frames"][0].update(camera_model="OPENCV_FISHEYE"), "several camera models"),
    "unknown name": (lambda c: c["test_filenames"].append("no.png"), r"test_filenames names no\.png, which no frame"),
    "names": (lambda c: c.update(test_filenames=3), "must be a list of names"),
    "number as name": (lambda c: c["frames"][0].update(file_path=7), "file_path 7, which is not a name"),
}


@pytest.mark.parametrize("fault", PARSER_FAULTS)
def test_transforms_files(copy, fault):
    damage, sentence = PARSER_FAULTS[fault]
    folder = copy("nerfstudio")
    edit(folder / "transforms.json", damage)
    with pytest.raises(SceneError, match=sentence) as caught:
        look(folder, NerfstudioDataParserConfig()).findings.raise_errors()
    assert "add `nerfstudio-data`" not in str(caught.value)  # it is the one in use


def fisheye(folder: Path) -> None:
    path = folder / "colmap/sparse/0/cameras.txt"
    path.write_text("1 FULL_OPENCV 20 20 20 20 10 10 0 0 0 0 0 0 0 0\n")


COLMAP_FAULTS = {
    "no smaller images": (lambda s: None, {"downscale_factor": 2}, r"images_2 is missing \(--downscale-factor 2\)"),
    "large images": (
        lambda s: [Image.new("RGB", (3300, 8)).save(path) for path in (s / "images").iterdir()],
        {},
        r"images_4 is missing \(the images are large\).*--downscale-factor 1",
    ),
    "model elsewhere": (
        lambda s: (s / "colmap/sparse").rename(s / "sparse"),
        {},
        r"no COLMAP model at .*: add --colmap-path sparse/0 after `colmap`",
    ),
    "camera model": (fisheye, {}, "cannot read .* with colmap: FULL_OPENCV"),
    "cut model": (
        lambda s: (s / "colmap/sparse/0/images.txt").write_text("1 0.5 0.5\n"),
        {},
        "cannot read .* with colmap",
    ),
    "image": (lambda s: (s / "images/val_000.png").unlink(), {}, r"no image .*val_000\.png"),
    "split": (lambda s: None, {"eval_mode": "filename"}, "frame should contain train/eval"),
    "empty split": (lambda s: None, {"eval_mode": "fraction", "train_split_fraction": 1.0}, "val split .* no images"),
    "masks": (lambda s: None, {"masks_path": Path("masks")}, "no mask .*masks"),
}


@pytest.mark.parametrize("fault", COLMAP_FAULTS)
def test_colmap_models(copy, fault):
    damage, options, sentence = COLMAP_FAULTS[fault]
    folder = copy("colmap")
    damage(folder)
    with pytest.raises(SceneError, match=sentence) as caught:
        look(folder, ColmapDataParserConfig(**options)).findings.raise_errors()
    assert "\n" not in str(caught.value)
    assert "add `colmap" not in str(caught.value)


def test_rounding_of_smaller_images_is_named(copy):
    folder = copy("colmap")
    for name, size in (("images", 21), ("images_2", 11)):
        (folder / name).mkdir(exist_ok=True)
        for path in (folder / "images").iterdir():
            Image.new("RGB", (size, size)).save(folder / name / path.name)
    path = folder / "colmap/sparse/0/cameras.txt"
    path.write_text(path.read_text().replace("PINHOLE 20 20", "PINHOLE 21 21"))
    with pytest.raises(SceneError, match=r"11 x 11 pixels, .* 10 x 10: add --downscale-rounding-mode round or ceil"):
        look(folder, ColmapDataParserConfig(downscale_factor=2)).findings.raise_errors()
    report = look(folder, ColmapDataParserConfig(downscale_factor=2, downscale_rounding_mode="ceil"))
    assert not report.findings.errors


def test_what_any_parser_fails_with_is_one_sentence(copy):
    folder = copy("blender")
    (folder / "train.npz").write_bytes(b"no archive")
    with pytest.raises(SceneError, match=r"cannot read .* with MinimalDataParser: "):
        look(folder, MinimalDataParserConfig()).findings.raise_errors()


def test_a_file_names_its_parser(scene_layouts):
    with pytest.raises(SceneError, match="add `nerfstudio-data` at the end"):
        look(scene_layouts / "nerfstudio" / "transforms.json")
