"""The look at a scene before a run: every split, all faults at once, near and far, backgrounds; and `check-scene`."""

import json
import math
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.minimal_dataparser import MinimalDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from perception.datasets.synthetic import radiance
from perception.engine.errors import UserError
from perception.studio.camera_checks import check_cameras
from perception.studio.check_scene import CheckScene, check
from perception.studio.depth_range import common_point, find_depth_range
from perception.studio.errors import SceneError
from perception.studio.parsers import read_by
from perception.studio.scene_checks import SceneReport, SceneUse, check_scene
from perception.studio.scene_picture import frustum_segments
from tests.studio.toy import ToyModelConfig, make_trainer, toy_config

pytestmark = pytest.mark.xdist_group("nerfstudio")
WHITE = torch.ones(3)
USE = SceneUse(("test",), surrounded=True, bounds_rays=True)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    for layout in ("blender", "nerfstudio", "colmap"):
        params = radiance.Params(num_train=6, num_val=2, num_test=3, size=20, num_objects=2, layout=layout)
        radiance.write(folder / layout, params)
    return folder


@pytest.fixture
def copy(scenes, tmp_path):
    return lambda layout: shutil.copytree(scenes / layout, tmp_path / layout)


def look(folder: Path, config=None, use=USE, **options) -> SceneReport:
    config = config or BlenderDataParserConfig()
    config.data = folder
    return check_scene(read_by(config).setup(), ("train", "val"), use, **{"background": WHITE, **options})


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


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


@pytest.mark.parametrize(("factor", "expected"), [(4.0, (8, 24)), (0.2, (0.4, 1.2)), (1.0, (2, 6)), (1.1, (2, 6))])
def test_near_and_far_follow_the_cameras(copy, factor, expected):
    folder = copy("blender")
    for path in folder.glob("transforms_*.json"):
        edit(path, lambda c: [move(f["transform_matrix"], factor) for f in c["frames"]])
    report = look(folder)
    assert not report.findings.errors
    assert not report.findings.warnings
    assert report.depth_range[:2] == pytest.approx(expected)


def move(pose: list, factor: float) -> None:
    for row in pose[:3]:
        row[3] *= factor


def test_stated_near_and_far_must_fit(copy):
    folder = copy("blender")
    report = look(folder, use=SceneUse(near=5.0, far=20.0, bounds_rays=True))
    assert "leave out what 6 of 6 cameras look at, 4 to 4 ahead" in report.findings.errors[0]
    assert "about 2 and 6" in report.findings.errors[0]
    report = look(folder, use=SceneUse(near=6.0, bounds_rays=True))
    assert report.findings.errors == ["near (6) must be at least 0 and below far (6)"]
    edit(folder / "transforms_train.json", lambda c: move(c["frames"][0]["transform_matrix"], 2.0))
    report = look(folder, use=SceneUse(near=2.0, far=6.0, bounds_rays=True))
    assert not report.findings.errors
    assert "what 1 of 6 cameras look at" in report.findings.warnings[0]


def test_far_reaches_what_close_cameras_look_at(scenes):
    config = NerfstudioDataParserConfig(center_method="none", orientation_method="none", auto_scale_poses=False)
    config.data = scenes / "nerfstudio"
    outputs = read_by(config).setup().get_dataparser_outputs("train")
    positions = outputs.cameras.camera_to_worlds[:, :, 3]
    near, far, _ = find_depth_range(config, outputs)
    assert far == float(torch.cdist(positions, positions).max())
    assert near == pytest.approx(0.05 * far)
    poses = [radiance.look_at_origin(np.array([np.cos(a), np.sin(a), 0.3]) / np.hypot(1, 0.3)) for a in (0, 0.2, 0.4)]
    outputs.cameras = Cameras(torch.tensor(np.stack(poses))[:, :3].float(), 20.0, 20.0, 10.0, 10.0, 20, 20)
    assert find_depth_range(config, outputs).far == pytest.approx(6, rel=1e-3)


def test_common_point():
    positions = torch.tensor([[4.0, 1, 2], [1, 5, 2], [1, 1, 6]], dtype=torch.float64)
    target = torch.tensor([1.0, 1, 2], dtype=torch.float64)
    forward = torch.nn.functional.normalize(target - positions, dim=-1)
    torch.testing.assert_close(common_point(positions, forward), target)
    assert common_point(positions, forward[:1].expand(3, 3)) is None


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


def test_cameras_with_opencv_axes_are_recognised(copy):
    folder = copy("blender")

    def turn(content):
        for frame in content["frames"]:
            for row in frame["transform_matrix"][:3]:
                row[1], row[2] = -row[1], -row[2]

    edit(folder / "transforms_train.json", turn)
    assert "the poses may have OpenCV axes" in look(folder).findings.errors[0]
    edit(folder / "transforms_train.json", lambda c: [move(f["transform_matrix"], 0.0) for f in c["frames"]])
    assert "all stand at one place" in look(folder).findings.errors[0]


def test_odd_projections_are_remarked_on(copy):
    folder = copy("blender")
    edit(folder / "transforms_train.json", lambda c: c.update(camera_angle_y=0.4, cx=25.0))
    report = look(folder)
    assert not report.findings.errors
    first, second, *others = report.findings.warnings
    assert "principal point at (25, 10), outside the image (and 5 more of this kind)" in first
    assert "focal lengths 27.778 and 49.332 pixels, as if pixels were not square" in second
    assert all("outlines" in other for other in others)  # which then do not agree, either


def test_a_file_names_its_parser(scenes):
    with pytest.raises(SceneError, match="add `nerfstudio-data` at the end"):
        look(scenes / "nerfstudio" / "transforms.json")


def test_places_that_single_precision_cannot_tell_apart(scenes):
    config = NerfstudioDataParserConfig(data=scenes / "nerfstudio")
    outputs = read_by(config).setup().get_dataparser_outputs("train")
    outputs.cameras.camera_to_worlds[:, :, 3] += torch.tensor([5e5, 5e6, 0.0])
    with pytest.raises(SceneError, match=r"around \[500000\.0, 5000000\.0, -?0\.0\], where single precision"):
        check_cameras(outputs.cameras, outputs.image_filenames)


def test_command(copy, capsys):
    folder = copy("blender")
    settings = CheckScene(data=folder, out=folder / "pictures/scene.png")
    assert check(settings) == 0
    printed = capsys.readouterr().out
    assert "6 train, 2 val, 3 test views" in printed
    assert "near 2, far 6" in printed
    with Image.open(settings.out) as picture:
        assert min(picture.size) > 500
    cut(folder / "test/r_000.png")
    assert check(settings) == 1
    assert "error: cannot read" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"no method 'x'; known are .*vqrf"):
        check(CheckScene(data=folder, method="x"))
    assert check(CheckScene(data=folder / "train", out=settings.out)) == 1
    assert "error: " + str(folder / "train") + " has no transforms_train.json" in capsys.readouterr().err
    with pytest.raises(UserError, match="no scene at"):
        check(CheckScene(data=folder / "nowhere"))


def test_command_takes_a_data_parser_and_its_options():
    words = [
        "--data",
        "SCENE",
        "--method",
        "vqrf-tiny",
        "--near",
        "1.5",
        "--out",
        "a.png",
        "colmap",
        "--colmap-path",
        "sparse/0",
    ]
    settings = tyro.cli(CheckScene, args=words)
    assert (settings.data, settings.method, settings.near, settings.out.name) == (
        Path("SCENE"),
        "vqrf-tiny",
        1.5,
        "a.png",
    )
    assert settings.dataparser == ColmapDataParserConfig(colmap_path=Path("sparse/0"))
    assert isinstance(tyro.cli(CheckScene, args=words[:2]).dataparser, BlenderDataParserConfig)


def test_frusta_are_drawn_where_cameras_look():
    pose = torch.eye(4)[None, :3].clone()
    pose[0, :, 3] = torch.tensor([1.0, 2, 3])
    cameras = Cameras(pose, torch.tensor([[10.0]]), torch.tensor([[20.0]]), 5.0, 6.0, 20, 30)
    segments = frustum_segments(cameras, 2.0)
    assert segments.shape == (8, 2, 3)
    np.testing.assert_allclose(segments[:4, 0], [[1, 2, 3]] * 4)
    # x: (0 - 5) / 10 and (20 - 5) / 10, y: 6 / 20 and -(30 - 6) / 20, twice as far and from the camera's place
    corners = [[0, 2.6, 1], [4, 2.6, 1], [4, -0.4, 1], [0, -0.4, 1]]
    np.testing.assert_allclose(segments[:4, 1], corners, atol=1e-6)


def test_images_listed_twice_are_remarked_on(copy):
    folder = copy("blender")
    edit(folder / "transforms_train.json", lambda c: c["frames"].append(c["frames"][3]))
    assert look(folder).findings.warnings == [
        f"1 train images are listed more than once, {folder / 'train/r_003.png'} among them"
    ]


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_a_scene_box_has_a_volume(scale, scenes):
    errors = look(scenes / "nerfstudio", NerfstudioDataParserConfig(scene_scale=scale)).findings.errors
    assert any("has no volume: correct" in error for error in errors)
