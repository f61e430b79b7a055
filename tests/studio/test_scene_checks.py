"""The look at a scene before a run: images and masks of every split, all faults at once, and backgrounds."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from perception.studio.errors import SceneError
from perception.studio.scene_checks import SceneUse
from tests.studio.looked_at import WHITE, cut, edit, look
from tests.studio.toy import ToyModelConfig, make_trainer, toy_config

pytestmark = pytest.mark.xdist_group("nerfstudio")


def add_masks(folder: Path, mode: str = "L", size: int = 20, value=255) -> None:
    Image.new(mode, (size, size), value).save(folder / "mask.png")
    edit(folder / "transforms.json", lambda c: [f.update(mask_path="mask.png") for f in c["frames"]])


def as_jpeg(path: Path) -> Path:
    Image.open(path).convert("RGB").save(path.with_suffix(".jpg"))
    path.unlink()
    return path.with_suffix(".jpg")


REPORT_FAULTS = {  # of the views that a run reads last
    "missing": (lambda s: (s / "test/r_001.png").unlink(), r"there is no image .*test/r_001\.png"),
    "empty": (lambda s: (s / "test/r_001.png").write_bytes(b""), r"cannot read .*r_001\.png: empty file"),
    "cut": (lambda s: cut(s / "test/r_001.png"), r"cannot read .*r_001\.png"),
    "cut JPEG": (lambda s: cut(as_jpeg(s / "test/r_001.png")), r"cannot read .*r_001\.jpg: the file is cut off"),
    "opaque": (
        lambda s: Image.open(s / "test/r_001.png").convert("RGB").save(s / "test/r_001.png"),
        "3 channels, but a scene in Blender layout needs RGBA",
    ),
    "sixteen bits": (
        lambda s: Image.fromarray(np.zeros((20, 20), np.uint16)).save(s / "test/r_001.png"),
        "8-bit RGB or RGBA",
    ),
    "other shape": (lambda s: Image.new("RGBA", (20, 10)).save(s / "test/r_001.png"), "20 x 10 pixels, but its camera"),
    "pose": (
        lambda s: edit(s / "transforms_test.json", lambda c: c["frames"][1].update(transform_matrix=[[1, 2]])),
        "frame 1 has a transform_matrix that is not a 4 x 4 matrix",
    ),
    "no frames": (lambda s: edit(s / "transforms_test.json", lambda c: c.update(frames=None)), "lists no frames"),
}


@pytest.mark.parametrize("fault", REPORT_FAULTS)
def test_the_views_of_the_report_are_looked_at_first(copy, fault):
    damage, sentence = REPORT_FAULTS[fault]
    folder = copy("blender")
    damage(folder)
    report = look(folder)
    assert len(report.findings.errors) == 1
    with pytest.raises(SceneError, match=sentence):
        report.findings.raise_errors()
    assert not look(folder, use=SceneUse()).findings.errors  # nothing is said of views that nobody reads


def test_a_run_stops_before_its_first_step(copy, tmp_path):
    folder = copy("blender")
    (folder / "test/r_001.png").unlink()
    config = toy_config(folder, tmp_path)
    config.pipeline.model = ReportingConfig(compute_lpips=False)
    with pytest.raises(SceneError, match=r"no image .*test/r_001\.png"):
        make_trainer(config)


class ReportingConfig(ToyModelConfig):
    """The toy with a report on the test views."""

    def scene_use(self) -> SceneUse:
        return SceneUse(("test",))


def test_everything_is_said_at_once(copy):
    folder = copy("blender")
    for name in ("train/r_000", "train/r_003"):
        (folder / f"{name}.png").unlink()
    cut(folder / "val/r_000.png")
    edit(folder / "transforms_test.json", lambda c: c.update(camera_angle_x=4.0))
    with pytest.raises(SceneError) as caught:
        look(folder).findings.raise_errors()
    message = str(caught.value)
    assert message.startswith("the scene has 3 faults: (1) ")
    assert "\n" not in message
    for part in ("train/r_000.png (and 1 more of this kind)", "(2) cannot read", "between 0 and pi radians, not 4.0"):
        assert part in message


MASK_FAULTS = {
    "colours": (lambda s: add_masks(s, "RGB", value=(255, 255, 255)), "has the channels RGB, but must have one"),
    "size": (lambda s: add_masks(s, size=10), "is 10 x 10 pixels, but its image 20 x 20"),
    "missing": (lambda s: (add_masks(s), (s / "mask.png").unlink()), r"there is no mask .*mask\.png"),
    "empty": (lambda s: add_masks(s, value=0), "exclude every pixel of every image"),
    "some": (
        lambda s: edit(s / "transforms.json", lambda c: c["frames"][0].update(mask_path="images/train_000.png")),
        r"names masks for 1 of 11 frames: name one for each, or none",
    ),
}


@pytest.mark.parametrize("fault", MASK_FAULTS)
def test_masks(copy, fault):
    damage, sentence = MASK_FAULTS[fault]
    folder = copy("nerfstudio")
    damage(folder)
    with pytest.raises(SceneError, match=sentence):
        look(folder, NerfstudioDataParserConfig()).findings.raise_errors()


def test_the_share_that_masks_leave_out_is_said(copy):
    folder = copy("nerfstudio")
    mask = np.zeros((20, 20), np.uint8)
    mask[:15] = 255
    add_masks(folder)
    Image.fromarray(mask).save(folder / "mask.png")
    report = look(folder, NerfstudioDataParserConfig())
    assert report.left_out == {"train": 0.25, "val": 0.25, "test": 0.25}
    assert "pixels, of which masks leave out 25%, focal length" in report.summary()[1]


def flatten(folder: Path, colour: str) -> None:
    for path in (folder / "images").iterdir():
        image = Image.open(path)
        ground = Image.new("RGBA", image.size, colour)
        ground.alpha_composite(image)
        ground.convert("RGB").save(path)


@pytest.mark.parametrize(("colour", "other"), [("black", "white"), ("white", "black")])
def test_opaque_images_on_another_background(copy, colour, other):
    folder = copy("nerfstudio")
    backgrounds = {"white": WHITE, "black": torch.zeros(3)}
    assert not look(folder, NerfstudioDataParserConfig(), background=backgrounds[other]).findings.warnings
    flatten(folder, colour)
    warnings = look(folder, NerfstudioDataParserConfig(), background=backgrounds[other]).findings.warnings
    assert len(warnings) == 1
    assert f"are {colour}, but rays that meet nothing show {other}" in warnings[0]
    assert f"--pipeline.datamanager.background {colour} before" in warnings[0]
    assert not look(folder, NerfstudioDataParserConfig(), background=backgrounds[colour]).findings.warnings


def test_colours_that_were_multiplied_with_alpha_are_remarked_on(copy):
    folder = copy("nerfstudio")
    for path in (folder / "images").iterdir():
        pixels = np.asarray(Image.open(path)).astype(float)
        pixels[..., 3] = np.minimum(pixels[..., 3], np.linspace(20, 500, 20)[:, None])  # edges alone are few pixels
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    assert not look(folder, NerfstudioDataParserConfig()).findings.warnings
    for path in (folder / "images").iterdir():
        pixels = np.asarray(Image.open(path)).astype(float)
        pixels[..., :3] *= pixels[..., 3:] / 255
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    assert "multiplied with alpha" in look(folder, NerfstudioDataParserConfig()).findings.warnings[0]


def test_turned_photographs(copy):
    folder = copy("nerfstudio")
    exif = Image.Exif()
    exif[0x0112] = 6
    names = [path.name for path in sorted((folder / "images").iterdir())]
    for name in names:
        Image.open(folder / "images" / name).convert("RGB").save(folder / f"images/{name}.jpg", exif=exif)

    def change(content):
        for frame in content["frames"]:
            frame["file_path"] += ".jpg"
        for key in ("train_filenames", "val_filenames", "test_filenames"):
            content[key] = [f"{name}.jpg" for name in content[key]]

    edit(folder / "transforms.json", change)
    report = look(folder, NerfstudioDataParserConfig())
    assert not report.findings.errors
    assert "is to be turned when shown (EXIF orientation 6)" in report.findings.warnings[0]
    for name in names:
        Image.new("RGB", (20, 30)).save(folder / f"images/{name}.jpg", exif=exif)
    edit(folder / "transforms.json", lambda c: c.update(w=30))
    message = look(folder, NerfstudioDataParserConfig()).findings.errors[0]
    assert "20 x 30 pixels, but its camera 30 x 20: it is stored turned (EXIF orientation 6)" in message


def test_the_background_of_the_parser_counts(copy):
    folder = copy("blender")
    for path in (folder / "train").iterdir():
        image = Image.open(path)
        ground = Image.new("RGBA", image.size, "black")
        ground.alpha_composite(image)
        ground.convert("RGB").save(path)
    look_opaque = partial(look, folder, use=SceneUse(), allow_opaque=True)
    assert "add --alpha-color black after the data parser's name" in look_opaque().findings.warnings[0]
    assert not look_opaque(BlenderDataParserConfig(alpha_color="black")).findings.warnings
    with pytest.raises(SceneError, match=r"with blender-data: nocolour is not a valid preset color"):
        look_opaque(BlenderDataParserConfig(alpha_color="nocolour"))


def test_views_in_two_splits_are_remarked_on(copy):
    folder = copy("nerfstudio")
    edit(folder / "transforms.json", lambda c: c.update(test_filenames=c["train_filenames"][:2]))
    assert "2 test views are training views as well" in look(folder, NerfstudioDataParserConfig()).findings.warnings[0]


def test_images_listed_twice_are_remarked_on(copy):
    folder = copy("blender")
    edit(folder / "transforms_train.json", lambda c: c["frames"].append(c["frames"][3]))
    assert look(folder).findings.warnings == [
        f"1 train images are listed more than once, {folder / 'train/r_003.png'} among them"
    ]
