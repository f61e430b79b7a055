"""Scenes in LLFF layout: poses, bounds, sizes, splits, and what a file can state that no run should start with."""

import json
import shutil

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from PIL import Image

from perception.datasets.synthetic import radiance, shelves
from perception.geometry.poses import average_pose
from perception.geometry.se3 import compose
from perception.studio.errors import SceneError
from perception.studio.llff_dataparser import LLFFDataParserConfig
from perception.studio.parsers import read_by
from perception.studio.scene import describe_parser, parser_config
from perception.studio.scene_checks import PLAIN_USE, SceneUse, check_scene
from tests.studio.llff_scenes import LARGE, PARAMS, edit, images, read, resize
from tests.studio.toy import make_trainer, toy_config

pytestmark = pytest.mark.xdist_group("nerfstudio")
WHITE = torch.ones(3)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llff") / "scene"
    shelves.write(folder, PARAMS)
    return folder


@pytest.fixture
def copy(scene, tmp_path):
    return shutil.copytree(scene, tmp_path / "scene")


def look(folder, use=PLAIN_USE, **options):
    return check_scene(
        read_by(LLFFDataParserConfig(data=folder, **options)).setup(), ("train", "val"), use, background=WHITE
    )


def refused(folder, match, **options):
    with pytest.raises(SceneError, match=match) as caught:
        read(folder, **options)
    return str(caught.value)


# Poses


def test_poses_are_those_of_the_cameras_in_the_frame_of_their_average(scene):
    views = read(scene).metadata["llff"]
    ours = compose(views.poses[:, :, :3].double(), views.poses[:, :, 3].double())
    torch.testing.assert_close(average_pose(ours), torch.eye(4, dtype=torch.float64), atol=1e-6, rtol=0)
    true = torch.from_numpy(shelves.cameras_of(PARAMS))
    nearest = min(np.load(scene / "poses_bounds.npy")[:, 15])
    true[:, :3, 3] /= 0.75 * nearest
    # Between any two cameras the motion is the same in every frame.
    torch.testing.assert_close(torch.linalg.inv(ours[:1]) @ ours, torch.linalg.inv(true[:1]) @ true, atol=1e-6, rtol=0)


def test_the_transform_leads_back_to_the_file(scene):
    outputs = read(scene, "test", downscale_factor=4)
    back = outputs.transform_poses_to_original_space(outputs.cameras.camera_to_worlds, camera_convention="opengl")
    expected = torch.from_numpy(shelves.cameras_of(PARAMS)[[0, 8], :3]).float()
    torch.testing.assert_close(back, expected, atol=1e-5, rtol=0)


def agreement(scene, change=lambda pose: pose) -> float:
    """The share of one view's pixels whose recorded depths, seen by the next view, are the depths that one recorded."""
    outputs = read(scene, downscale_factor=1)
    scale, cameras = outputs.dataparser_scale, outputs.cameras
    depths = [
        torch.from_numpy(np.load(scene / f"geometry/{path.stem}.npz")["depth"]) * scale
        for path in outputs.image_filenames[:2]
    ]
    bundle = cameras.generate_rays(camera_indices=0, keep_shape=True)
    points = bundle.origins + bundle.directions * bundle.metadata["directions_norm"] * depths[0][..., None]
    pose = change(cameras.camera_to_worlds[1])
    local = (points - pose[:, 3]) @ pose[:, :3]
    column = (cameras.fx[1] * local[..., 0] / -local[..., 2] + cameras.cx[1]).floor().long()
    row = (cameras.cy[1] - cameras.fy[1] * local[..., 1] / -local[..., 2]).floor().long()
    inside = (column >= 0) & (column < LARGE[0]) & (row >= 0) & (row < LARGE[1])
    assert float(inside.float().mean()) > 0.5
    difference = depths[1][row[inside], column[inside]] + local[..., 2][inside]
    return float((difference.abs() < 0.01 * depths[0][inside]).float().mean())


def test_a_point_projects_to_the_pixel_that_shows_it(scene):
    """The whole way, from the table to rays."""
    assert agreement(scene) > 0.75  # the rest is hidden by something, or at an edge
    rolled = agreement(scene, lambda pose: torch.stack([pose[:, 1], -pose[:, 0], pose[:, 2], pose[:, 3]], -1))
    assert rolled < 0.2


def test_bounds_are_near_and_far(scene):
    table = np.load(scene / "poses_bounds.npy")
    outputs = read(scene)
    scale = 1 / (0.75 * table[:, 15].min())
    assert outputs.dataparser_scale == pytest.approx(scale)
    assert outputs.metadata["near"] == pytest.approx(4 / 3)
    assert outputs.metadata["far"] == pytest.approx(table[:, 16].max() * scale)
    np.testing.assert_allclose(outputs.metadata["llff"].bounds, table[:, 15:] * scale, rtol=1e-6)
    assert look(scene).depth_range[:2] == (outputs.metadata["near"], outputs.metadata["far"])
    box = outputs.scene_box.aabb
    assert bool((box[0] < box[1]).all())
    assert float(box[0, 2]) < -outputs.metadata["far"] < float(box[1, 2])


def test_a_frame_of_its_own_does_not_change_with_the_rows(copy, tmp_path):
    before = read(copy)
    before.save_dataparser_transform(tmp_path / "transforms.json")
    for folder in ("images", "images_4"):
        for path in images(copy, folder)[6:]:
            path.unlink()
    edit(copy, lambda table: table[:6])
    moved, kept = read(copy), read(copy, frame=tmp_path / "transforms.json")
    names = [path.name for path in before.image_filenames]
    rows = [names.index(path.name) for path in kept.image_filenames]
    poses = before.cameras.camera_to_worlds[rows]
    torch.testing.assert_close(kept.cameras.camera_to_worlds, poses, atol=1e-5, rtol=0)
    assert not torch.allclose(moved.cameras.camera_to_worlds, poses, atol=1e-3)
    refused(copy, r"there is no file .*gone\.json", frame=tmp_path / "gone.json")
    (tmp_path / "odd.json").write_text(json.dumps({"transform": [[1, 0], [0, 1]], "scale": 1}))
    refused(copy, "must hold a 3 x 4 transform and a positive scale", frame=tmp_path / "odd.json")


def test_rows_of_14_numbers_with_intrinsics_beside_them(copy):
    whole = read(copy, downscale_factor=4)
    table = np.load(copy / "poses_bounds.npy").copy()
    matrices = table[:, :15].reshape(-1, 3, 5)
    np.save(copy / "poses_bounds.npy", np.concatenate([matrices[:, :, :4].reshape(-1, 12), table[:, 15:]], 1))
    refused(copy, r"rows of 14 numbers, .* and there is no hwf_cxcy\.npy")
    height, width, focal = matrices[0, :, 4]
    np.save(copy / "hwf_cxcy.npy", np.array([height, width, focal, width / 2 + 8, height / 2 - 4]))
    outputs = read(copy, downscale_factor=4)
    torch.testing.assert_close(outputs.cameras.camera_to_worlds, whole.cameras.camera_to_worlds)
    torch.testing.assert_close(outputs.cameras.fx, whole.cameras.fx)
    assert outputs.cameras.cx.unique().tolist() == [14]
    assert outputs.cameras.cy.unique().tolist() == [7]
    # With a focal length along each axis, as newer scenes have it; for all images, and for each.
    six = np.array([height, width, focal, 2 * focal, width / 2 + 8, height / 2 - 4])
    for numbers in (six, np.tile(six, (len(table), 1)), np.tile(six, (len(table), 1)).T):
        np.save(copy / "hwf_cxcy.npy", numbers)
        cameras = read(copy, downscale_factor=4).cameras
        torch.testing.assert_close(cameras.fx, whole.cameras.fx)
        torch.testing.assert_close(cameras.fy, 2 * whole.cameras.fy)
        assert cameras.cx.unique().tolist() == [14]
    np.save(copy / "hwf_cxcy.npy", np.array([height, width, focal, -focal, 1, 1]))
    refused(copy, "row 0 gives height .* all must be positive")
    np.save(copy / "hwf_cxcy.npy", np.ones((3, 5)))
    refused(copy, r"five or six numbers, or so many for each of 12 images, not the shape \(3, 5\)")


TABLES = {
    "transposed": (lambda t: t.T, r"N rows of 17 numbers, not of the shape \(17, 12\): it seems to be transposed"),
    "columns": (lambda t: t[:, :15], r"not of the shape \(12, 15\)"),
    "flat": (lambda t: t.reshape(-1), r"not of the shape \(204,\)"),
    "empty": (lambda t: t[:0], "not of the shape"),
    "words": (lambda t: t.astype(str), "one table of numbers"),
    "not a number": (lambda t: t.__setitem__((3, 7), np.nan), "row 3 holds numbers that are not finite"),
    "mirrored": (
        lambda t: t.__setitem__((slice(None), [0, 5, 10]), -t[:, [0, 5, 10]]),
        r"row 0 .* not a rotation: its columns must be .*11 more",
    ),
    "no focal length": (lambda t: t.__setitem__((2, 14), 0), "row 2 gives height 64, width 96 and focal length 0"),
}


@pytest.mark.parametrize("fault", TABLES)
def test_tables_that_are_none(copy, fault):
    change, sentence = TABLES[fault]
    edit(copy, change)
    refused(copy, sentence)


def test_files_that_are_no_tables(copy):
    (copy / "poses_bounds.npy").write_bytes(b"\x93NUMPY")
    refused(copy, "cannot read .*poses_bounds")
    np.save(copy / "poses_bounds.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(copy, "cannot read .*poses_bounds")


BOUNDS = {
    "negative": ((5, 15), -0.3, r"row 5: near bound -0\.3 is not positive; pass --near and --far"),
    "reversed": ((4, 15), 50.0, r"row 4: near bound 50 is not below the far bound"),
    "outlier": ((7, 15), 1e-6, r"row 7: near bound 1e-06 is far below those of the others"),
}


@pytest.mark.parametrize("fault", BOUNDS)
def test_impossible_bounds(copy, fault):
    place, value, sentence = BOUNDS[fault]
    good = read(copy)
    edit(copy, lambda table: table.__setitem__(place, value))
    refused(copy, sentence)
    near, far = good.metadata["near"] / good.dataparser_scale, good.metadata["far"] / good.dataparser_scale
    stated = read(copy, near=near, far=far)  # in the file's units
    assert stated.metadata["near"] == pytest.approx(4 / 3)
    assert stated.metadata["far"] == pytest.approx(good.metadata["far"])
    torch.testing.assert_close(stated.cameras.camera_to_worlds, good.cameras.camera_to_worlds)


# Sizes


def test_focal_lengths_go_by_the_sizes_of_files(scene):
    full, small = read(scene, downscale_factor=1).cameras, read(scene, downscale_factor=4).cameras
    assert full.fx.unique().tolist() == pytest.approx([PARAMS.focal])
    torch.testing.assert_close(full.fx / 4, small.fx)
    assert small.width.unique().tolist() == [24]
    assert small.cx.unique().tolist() == [12]
    assert small.cy.unique().tolist() == [8]


@pytest.mark.parametrize("size", [(25, 17), (24, 16)])
def test_a_quarter_that_is_not_exact(copy, size):
    """99 x 66 pixels: the makers of the small images rounded, and readers divide by four."""
    resize(copy, "images", (99, 66))
    resize(copy, "images_4", size)
    edit(copy, lambda table: table.__setitem__((slice(None), [4, 9]), [66, 99]))
    cameras = read(copy, downscale_factor=4).cameras
    assert float(cameras.fx[0]) == pytest.approx(PARAMS.focal * size[0] / 99)
    assert float(cameras.fy[0]) == pytest.approx(PARAMS.focal * size[1] / 66)
    assert (float(cameras.cx[0]), float(cameras.cy[0])) == (size[0] / 2, size[1] / 2)


def test_sizes_that_contradict_the_folder(copy):
    resize(copy, "images_4", (30, 20))
    message = refused(copy, "30 pixels wide and 20 high", downscale_factor=4)
    assert "gives height 64 and width 96, of which --downscale-factor 4 makes 24 x 16" in message
    shutil.rmtree(copy / "images_4")
    shutil.copytree(copy / "images", copy / "images_4")
    refused(copy, "images_4 holds images of another size than its name says", downscale_factor=4)
    resize(copy, "images_4", (24, 24))
    refused(copy, "they must have one shape", downscale_factor=4)


def test_height_and_width_swapped_in_the_table(copy):
    edit(copy, lambda t: t.__setitem__((slice(None), [4, 9]), t[:, [9, 4]]))
    message = refused(copy, "is 96 pixels wide and 64 high, but row 0 of poses_bounds.npy gives height 96 and width 64")
    assert message.endswith("height and width look swapped, or the image was turned (and 11 more of this kind)")


def test_turned_photographs(copy):
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in images(copy)[:2]:  # stored as the poses say: the tag is for showing
        Image.open(path).convert("RGB").save(path.with_suffix(".jpg"), exif=exif)
        path.unlink()
    assert read(copy, downscale_factor=1).cameras.width.unique().tolist() == [96]
    warnings = look(copy, downscale_factor=1).findings.warnings
    assert any("EXIF orientation 6); its pixels are taken as they are stored" in warning for warning in warnings)
    for path in images(copy)[:2]:
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    refused(copy, r"image_000\.jpg is 64 .* it is stored turned \(EXIF orientation 6\): save it upright \(and 1 more")


def test_images_that_were_cropped_one_by_one(copy):
    path = images(copy)[4]
    Image.open(path).crop((1, 1, 95, 63)).save(path)
    message = refused(copy, r"image_004\.png is 94 x 62 pixels and image_000\.png 96 x 64")
    assert "gives both one size: crop all alike, or state the sizes and focal lengths of their rows" in message
    edit(copy, lambda table: table.__setitem__((4, [4, 9]), [62, 94]))
    cameras = read(copy).cameras
    assert cameras.width[:, 0].tolist()[3] == 94
    assert float(cameras.fx[3]) == float(cameras.fx[2])


def test_a_folder_named_by_its_size(copy):
    expected = read(copy, downscale_factor=4)
    (copy / "images_4").rename(copy / "images_24x16")
    outputs = read(copy, downscale_factor=4)
    assert outputs.image_filenames[0].parent.name == "images_24x16"
    torch.testing.assert_close(outputs.cameras.fx, expected.cameras.fx)
    message = refused(copy, "has no images_2, but images, images_24x16", downscale_factor=2)
    assert "choose --downscale-factor 1, --downscale-factor 4 after `llff-data`, or make" in message


def test_the_largest_images_are_the_default(copy, capsys):
    assert read(copy).image_filenames[0].parent.name == "images"
    shutil.rmtree(copy / "images")
    assert read(copy).image_filenames[0].parent.name == "images_4"
    assert "4 times smaller (--downscale-factor)" in " ".join(capsys.readouterr().out.split())
    refused(copy, "has no images, but images_4: choose --downscale-factor 4", downscale_factor=1)
    shutil.rmtree(copy / "images_4")
    refused(copy, "has no images, but no folder of images: make them")


def test_every_row_has_its_focal_length(copy):
    edit(copy, lambda table: table.__setitem__((3, 14), 2 * PARAMS.focal))
    outputs = read(copy, downscale_factor=4)
    focal = {path.stem: float(fx) for path, fx in zip(outputs.image_filenames, outputs.cameras.fx)}
    assert focal["image_003"] == pytest.approx(2 * focal["image_002"])
    assert "focal length 20.4 to 40.8" in "\n".join(look(copy, downscale_factor=4).summary())


def test_types_of_pixels(copy):
    small = images(copy, "images_4")
    Image.open(small[1]).convert("L").save(small[1])
    Image.open(small[2]).convert("P").save(small[2])
    assert not look(copy, downscale_factor=4).findings.errors
    Image.fromarray(np.zeros((16, 24), np.uint16)).save(small[3])
    assert look(copy, downscale_factor=4).findings.errors == [
        f"{small[3]} has pixels of type I;16; 8-bit RGB or RGBA is needed"
    ]


# Splits


def test_every_eighth_view_is_held_out(scene):
    names = {split: [path.stem for path in read(scene, split).image_filenames] for split in ("train", "val", "test")}
    assert names["test"] == ["image_000", "image_008"]
    assert names["val"] == ["image_000"]
    assert len(names["train"]) == 10
    assert not set(names["train"]) & set(names["test"])
    assert read(scene).metadata["llff"].held_out == (0, 8)
    assert "  val: images of 96 x 64 pixels, focal length 81.6 pixels (image_000.png)" in look(scene).summary()
    assert [path.stem for path in read(scene, "test", eval_interval=5).image_filenames] == [
        "image_000",
        "image_005",
        "image_010",
    ]


def test_views_are_held_out_by_name(scene):
    outputs = read(scene, "test", eval_names=("image_003", "image_007.png"))
    assert [path.stem for path in outputs.image_filenames] == ["image_003", "image_007"]
    assert len(read(scene, eval_names=("image_003",)).image_filenames) == 11
    refused(
        scene, r"--eval-names names cam00, but the images are image_000\.png to image_011\.png", eval_names=("cam00",)
    )


def test_nothing_held_out_is_said(scene):
    assert len(read(scene, eval_interval=0).image_filenames) == 12
    assert "val views are training views as well" in look(scene, eval_interval=0).findings.warnings[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"eval_interval": 1}, "--eval-interval must be 0"),
        ({"downscale_factor": 0}, "--downscale-factor must be at least 1"),
        ({"sr_scale": 0}, "--sr-scale must be at least 1"),
        ({"downscale_factor": 2, "sr_scale": 4}, r"must be a multiple of --sr-scale \(4\)"),
        ({"near": -1.0}, "--near must be positive"),
        ({"near": 5.0, "far": 4.0}, "near bound 5 is not below the far bound 4"),
    ],
)
def test_impossible_options(scene, options, sentence):
    refused(scene, sentence, **options)


# Forward-facing scenes


def ring(tmp_path):
    """The cameras around an object in the same layout."""
    params = radiance.Params(num_train=14, num_val=1, num_test=1, size=16, num_objects=2, layout="llff")
    radiance.write(tmp_path / "ring", params)
    return tmp_path / "ring", params


def test_the_same_cameras_in_two_layouts(tmp_path):
    folder, params = ring(tmp_path)
    ours = read(folder, eval_interval=0)
    back = ours.transform_poses_to_original_space(ours.cameras.camera_to_worlds, camera_convention="opengl")
    other = radiance.Params(**{**vars(params), "layout": "blender"})
    radiance.write(tmp_path / "blender", other)
    blender = read_by(BlenderDataParserConfig(data=tmp_path / "blender")).setup().get_dataparser_outputs("train")
    torch.testing.assert_close(back[:14], blender.cameras.camera_to_worlds, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.cameras.fx[:14], blender.cameras.fx.float())
    near, far = (ours.metadata[name] / ours.dataparser_scale for name in ("near", "far"))
    assert 2 < near < 4 < far < 6


def test_normalised_coordinates_on_a_ring_are_refused(tmp_path, scene):
    folder, _ = ring(tmp_path)
    errors = look(folder, SceneUse(ndc=True)).findings.errors
    assert len(errors) == 1
    assert "NDC) need a forward-facing scene; use a method for bounded scenes instead" in errors[0]
    assert int(errors[0].split("span ")[1].split(" degrees")[0]) > 100
    assert not look(folder, SceneUse(surrounded=True, bounds_rays=True)).findings.errors
    assert not look(scene, SceneUse(ndc=True)).findings.errors


def test_normalised_coordinates_need_cameras_along_z(scene):
    reader = read_by(LLFFDataParserConfig(data=scene)).setup()
    for split in ("train", "val"):
        poses = reader.get_dataparser_outputs(split).cameras.camera_to_worlds
        turned = poses[:, [2, 1, 0]] * torch.tensor([1.0, 1, -1])[:, None]  # about the vertical axis, by a quarter
        reader.get_dataparser_outputs(split).cameras.camera_to_worlds = turned
    report = check_scene(reader, ("train", "val"), SceneUse(ndc=True), background=WHITE)
    assert "degrees aside of -z" in report.findings.errors[0]
    reader = read_by(LLFFDataParserConfig(data=scene)).setup()
    reader.get_dataparser_outputs("train").cameras.camera_to_worlds[2, 2, 3] = -1.5
    report = check_scene(reader, ("train",), SceneUse(ndc=True), background=WHITE)
    assert "image_003.png stands behind the near plane at z = -1" in report.findings.errors[0]


# Elsewhere


def test_rays_of_a_training_step_are_those_of_the_small_images(scene, tmp_path):
    config = toy_config(scene, tmp_path / "out")
    config.pipeline.datamanager.dataparser = LLFFDataParserConfig(downscale_factor=4, sr_scale=4)
    manager = make_trainer(config).pipeline.datamanager
    assert manager.report.depth_range.near == pytest.approx(4 / 3)
    assert manager.train_dataset.metadata["high_resolution"].scale == 4
    rays, batch = manager.next_train(0)
    pose = manager.train_dataset.cameras.camera_to_worlds
    for ray in (0, 40, 95):
        view, row, column = batch["indices"][ray].tolist()
        colour = np.asarray(Image.open(manager.train_dataset.image_filenames[view]))[row, column]
        np.testing.assert_allclose(batch["image"][ray], colour / 255, atol=1e-6)
        torch.testing.assert_close(rays.origins[ray], pose[view, :, 3])


def test_the_layout_is_recognised(scene):
    with pytest.raises(SceneError, match="add `llff-data` at the end of the command to read it"):
        read_by(BlenderDataParserConfig(data=scene)).setup()
    assert isinstance(parser_config(scene), LLFFDataParserConfig)
    described = json.loads(json.dumps(describe_parser(LLFFDataParserConfig(downscale_factor=4, eval_names=("a", "b")))))
    assert described["name"] == "llff-data"
    assert parser_config(scene, described) == LLFFDataParserConfig(
        data=scene, downscale_factor=4, eval_names=("a", "b")
    )
    with pytest.raises(SceneError, match=r"the scene has no .*images/poses_bounds\.npy"):
        read(scene / "images")
