"""Scenes as users bring them: what their files state is used, and the same scene gives the same rays."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.instant_ngp_dataparser import InstantNGPDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from perception.datasets.synthetic import radiance
from perception.studio.camera_checks import check_cameras
from perception.studio.errors import SceneError
from perception.studio.nsvf_dataparser import NSVFDataParserConfig
from perception.studio.parsers import read_by

pytestmark = pytest.mark.xdist_group("nerfstudio")
SIZE, LEFT, TOP, KEPT = 20, 4, 2, 14  # images, and the part of them that a crop keeps
MAP = np.array([512_345.25, 5_400_123.5, 310.75])  # where surveyors put a house


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    for layout in ("blender", "nsvf", "tanks", "nerfstudio", "colmap"):
        params = radiance.Params(num_train=6, num_val=2, num_test=3, size=SIZE, num_objects=2, layout=layout)
        radiance.write(folder / layout, params)
    content = json.loads((folder / "nerfstudio/transforms.json").read_text())
    shutil.copytree(folder / "nerfstudio", folder / "ngp")
    lists = ("train_filenames", "val_filenames", "test_filenames")
    plain = {key: value for key, value in content.items() if key not in lists}
    (folder / "ngp/transforms.json").write_text(json.dumps(plain))
    return folder


@pytest.fixture
def copy(scenes, tmp_path):
    return lambda layout: shutil.copytree(scenes / layout, tmp_path / layout)


def read(config, folder: Path, split="train"):
    config.data = folder
    return read_by(config).setup().get_dataparser_outputs(split)


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_blender(folder: Path, change) -> None:
    for path in folder.glob("transforms_*.json"):
        edit(path, change)


def images(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.png")) if "geometry" not in path.parts]


def rays(outputs, rows, columns):
    """Directions (N, 3) through pixels of the first camera."""
    coords = torch.stack([torch.as_tensor(rows), torch.as_tensor(columns)], -1).float() + 0.5
    index = torch.zeros(len(coords), 1, dtype=torch.long)
    return outputs.cameras.generate_rays(index, coords=coords).directions.float()


def crop(folder: Path) -> None:
    for path in images(folder):
        Image.open(path).crop((LEFT, TOP, LEFT + KEPT, TOP + KEPT)).save(path)


ROWS, COLUMNS = [0, 3, 13], [0, 9, 13]


def test_principal_point_of_blender_files(copy, scenes):
    folder, focal = copy("blender"), radiance.Params(size=SIZE).focal
    crop(folder)
    stated = {"fl_x": focal, "fl_y": focal, "cx": SIZE / 2 - LEFT, "cy": SIZE / 2 - TOP, "w": KEPT, "h": KEPT}
    edit_blender(folder, lambda c: (c.pop("camera_angle_x"), c.update(stated)))
    cropped, whole = read(BlenderDataParserConfig(), folder), read(BlenderDataParserConfig(), scenes / "blender")
    expected = rays(whole, np.add(ROWS, TOP), np.add(COLUMNS, LEFT))
    torch.testing.assert_close(rays(cropped, ROWS, COLUMNS), expected, atol=1e-6, rtol=0)


def test_angles_of_single_blender_frames(copy):
    folder = copy("blender")
    edit_blender(folder, lambda c: c["frames"][1].update(camera_angle_x=1.2))
    fx = read(BlenderDataParserConfig(), folder).cameras.fx[:, 0]
    assert float(fx[1]) == pytest.approx(10 / math.tan(0.6))
    assert float(fx[0]) == float(fx[2]) == pytest.approx(radiance.Params(size=SIZE).focal)


def test_every_split_of_blender_files_has_its_angle(copy):
    """Images that are not square, and another angle in one file: neither sticks to the next one that is read."""
    folder = copy("blender")
    for path in images(folder):
        Image.open(path).crop((0, 4, SIZE, 16)).save(path)
    edit(folder / "transforms_test.json", lambda c: c.update(camera_angle_x=1.2))
    reader = read_by(BlenderDataParserConfig(data=folder)).setup()
    cameras = {split: reader.get_dataparser_outputs(split).cameras for split in ("test", "train")}
    assert float(cameras["test"].fx[0]) == float(cameras["test"].fy[0]) == pytest.approx(10 / math.tan(0.6))
    assert float(cameras["train"].fx[0]) == pytest.approx(radiance.Params(size=SIZE).focal)
    assert [int(cameras["train"][0].width), int(cameras["train"][0].height)] == [20, 12]
    assert float(cameras["train"].cy[0]) == 6


def test_blender_cameras_are_nerfstudios_where_an_angle_is_all(scenes):
    config = BlenderDataParserConfig(data=scenes / "blender")
    own, stock = (parser.setup().get_dataparser_outputs("train") for parser in (read_by(config), config))
    for name in ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height", "camera_type"):
        first, second = getattr(own.cameras, name), getattr(stock.cameras, name)
        assert first.dtype == second.dtype, name
        assert torch.equal(first, second), name
    assert own.cameras.distortion_params is None
    assert own.image_filenames == stock.image_filenames
    assert torch.equal(own.scene_box.aabb, stock.scene_box.aabb)


def test_blender_splits_stand_in_for_each_other(copy, capsys):
    folder = copy("blender")
    (folder / "transforms_val.json").unlink()
    assert len(read(BlenderDataParserConfig(), folder, "val").image_filenames) == 3
    assert "transforms_test.json stands in for it" in " ".join(capsys.readouterr().out.split())
    (folder / "transforms_test.json").rename(folder / "transforms_val.json")
    assert len(read(BlenderDataParserConfig(), folder, "test").image_filenames) == 3
    (folder / "transforms_val.json").unlink()
    with pytest.raises(SceneError, match=r"has no transforms_test\.json or transforms_val\.json"):
        read(BlenderDataParserConfig(), folder, "test")


@pytest.mark.parametrize(("stated", "suffix"), [(".png", ".png"), (".jpg", ".jpg"), ("", ".jpg")])
def test_blender_names_with_and_without_suffix(copy, stated, suffix):
    folder = copy("blender")
    for path in images(folder):
        Image.open(path).convert("RGB").save(path.with_suffix(suffix))
        if suffix != ".png":
            path.unlink()
    edit_blender(folder, lambda c: [f.update(file_path=f["file_path"] + stated) for f in c["frames"]])
    assert read(BlenderDataParserConfig(), folder).image_filenames[2] == folder / f"train/r_002{suffix}"


def test_masks_and_depths_of_blender_files(copy):
    folder = copy("blender")
    Image.new("L", (SIZE, SIZE), 255).save(folder / "mask.png")
    edit_blender(folder, lambda c: c.update(near=1.5, far=7))
    edit_blender(folder, lambda c: [f.update(mask_path="mask.png") for f in c["frames"]])
    outputs = read(BlenderDataParserConfig(scale_factor=2.0), folder)
    assert outputs.metadata == {"near": 3.0, "far": 14.0}
    assert outputs.mask_filenames == [folder / "mask.png"] * 6
    edit_blender(folder, lambda c: c["frames"][0].pop("mask_path"))
    with pytest.raises(SceneError, match="masks for 5 of 6 frames"):
        read(BlenderDataParserConfig(), folder)


def test_nsvf_files_state_their_size(copy, scenes):
    folder = copy("nsvf")
    for path in images(folder):
        Image.open(path).resize((10, 10), Image.Resampling.BOX).save(path)
    small, whole = read(NSVFDataParserConfig(), folder).cameras, read(NSVFDataParserConfig(), scenes / "nsvf").cameras
    torch.testing.assert_close(small.fx, whole.fx / 2)
    assert small.cx.unique().tolist() == [5]
    assert small.width.unique().tolist() == [10]


def test_principal_point_and_fy_of_tanks(copy, scenes):
    folder = copy("tanks")
    crop(folder)
    matrix = np.loadtxt(folder / "intrinsics.txt")
    matrix[:2, 2] -= [LEFT, TOP]
    np.savetxt(folder / "intrinsics.txt", matrix)
    cropped, whole = read(NSVFDataParserConfig(), folder), read(NSVFDataParserConfig(), scenes / "tanks")
    expected = rays(whole, np.add(ROWS, TOP), np.add(COLUMNS, LEFT))
    torch.testing.assert_close(rays(cropped, ROWS, COLUMNS), expected, atol=1e-6, rtol=0)
    matrix[1, 1] *= 2
    np.savetxt(folder / "intrinsics.txt", matrix)
    assert float(read(NSVFDataParserConfig(), folder).cameras.fy[0]) == pytest.approx(matrix[1, 1])


def test_nerfstudio_frames_go_before_the_scene(copy):
    folder = copy("nerfstudio")
    config = NerfstudioDataParserConfig(orientation_method="none", center_method="none", auto_scale_poses=False)
    before = read(config, folder)
    name = f"images/{before.image_filenames[1].name}"

    def change(content):
        frame = next(frame for frame in content["frames"] if frame["file_path"] == name)
        frame.update(fl_x=31.0, cx=9.0, k1=0.05)
        content["k1"] = 0.01
        for frame in content["frames"]:
            frame["transform_matrix"] = frame["transform_matrix"][:3]

    edit(folder / "transforms.json", change)
    after = read(config, folder)
    assert after.image_filenames == before.image_filenames
    torch.testing.assert_close(after.cameras.camera_to_worlds, before.cameras.camera_to_worlds)
    focal = float(before.cameras.fx[0])
    assert after.cameras.fx[:3, 0].tolist() == pytest.approx([focal, 31, focal])
    assert after.cameras.cx[:3, 0].tolist() == [10, 9, 10]
    assert after.cameras.distortion_params[:3, 0].tolist() == pytest.approx([0.01, 0.05, 0.01])


def test_nerfstudio_lists_stand_in_for_each_other(copy):
    folder = copy("nerfstudio")
    edit(folder / "transforms.json", lambda c: c.pop("test_filenames"))
    names = [path.name for path in read(NerfstudioDataParserConfig(), folder, "test").image_filenames]
    assert names == ["val_000.png", "val_001.png"]
    edit(folder / "transforms.json", lambda c: c.pop("val_filenames"))
    with pytest.raises(SceneError, match="neither val_filenames nor test_filenames"):
        read(NerfstudioDataParserConfig(), folder, "test")


def test_instant_ngp_files_state_fy_and_frames(copy):
    folder = copy("ngp")
    before = read(InstantNGPDataParserConfig(), folder).cameras
    assert float(before.fy[0]) == pytest.approx(radiance.Params(size=SIZE).focal)
    edit(folder / "transforms.json", lambda c: c.update(fl_y=40.0))
    edit(folder / "transforms.json", lambda c: [f.update(cx=8.5) for f in c["frames"]])
    after = read(InstantNGPDataParserConfig(), folder).cameras
    assert after.fy.unique().tolist() == [40]
    assert after.cx.unique().tolist() == [8.5]
    torch.testing.assert_close(after.fx, before.fx)
    torch.testing.assert_close(after.camera_to_worlds, before.camera_to_worlds)


def refused(config, folder: Path, match: str) -> None:
    with pytest.raises(SceneError, match=match):
        read(config, folder)


@pytest.mark.parametrize("layout", ["blender", "colmap", "nsvf"])
def test_a_file_where_a_folder_is_read(layout, scenes):
    configs = {"blender": BlenderDataParserConfig, "colmap": ColmapDataParserConfig, "nsvf": NSVFDataParserConfig}
    refused(
        configs[layout](),
        scenes / "blender/transforms_train.json",
        r"is a file, but .* reads a folder: pass .*blender(, or add .*)?$",
    )


def test_impossible_statements_of_instant_ngp_files(copy):
    folder, config = copy("ngp"), InstantNGPDataParserConfig()
    file = folder / "transforms.json"
    edit(file, lambda c: c.update(aabb_scale=-4))
    refused(config, folder, "aabb_scale must be a positive number, not -4")
    edit(file, lambda c: c.update(aabb_scale=4))
    edit(file, lambda c: c["frames"][2].update(file_path="images/gone"))
    refused(config, folder, "frame 2 names images/gone, but there is no image")
    edit(file, lambda c: c.update(frames=c["frames"][:1]))
    with pytest.raises(SceneError, match=r"the test split of .* has no images: choose another --eval-mode"):
        read(config, folder, "test")


@pytest.mark.parametrize("layout", ["blender", "nerfstudio", "ngp"])
def test_frames_name_all_their_masks_or_none(layout, copy):
    folder = copy(layout)
    file = folder / ("transforms_train.json" if layout == "blender" else "transforms.json")
    config = {"blender": BlenderDataParserConfig, "ngp": InstantNGPDataParserConfig}.get(
        layout, NerfstudioDataParserConfig
    )
    edit(file, lambda c: [f.update(mask_path="mask.png") for f in c["frames"][1:]])
    refused(config(), folder, r"names masks for \d+ of \d+ frames: name one for each, or none")
    edit(file, lambda c: [f.update(mask_path=3) for f in c["frames"]])
    refused(config(), folder, "frame 0 has the mask_path 3, which is not a name")
    edit(file, lambda c: [f.pop("mask_path") for f in c["frames"]])
    edit(file, lambda c: c["frames"][0].update(camera_model=["OPENCV"]))
    refused(config(), folder, r"frame 0 has the camera_model \['OPENCV'\]; known are")


@pytest.mark.parametrize("rows", [None, "none", [[1, 0], [0, 1]], [[1, 0, 0, "0"], [0, 1, 0, 0], [0, 0, 1, 0]]])
def test_an_applied_transform_is_a_matrix(rows, copy):
    folder = copy("nerfstudio")
    edit(folder / "transforms.json", lambda c: c.update(applied_transform=rows))
    refused(NerfstudioDataParserConfig(), folder, "applied_transform must be a 3 x 4 matrix")


def one_camera(config, folder: Path):
    outputs = read(config, folder, "test")
    assert outputs.cameras.shape == (1,)
    assert outputs.cameras.camera_to_worlds.shape == (1, 3, 4)
    assert outputs.cameras.fx.shape == outputs.cameras.width.shape == (1, 1)
    check_cameras(outputs.cameras, outputs.image_filenames)


def test_a_single_evaluation_image(copy):
    one_camera(ColmapDataParserConfig(eval_interval=100), copy("colmap"))
    one_camera(NerfstudioDataParserConfig(), _single(copy("nerfstudio")))
    one_camera(InstantNGPDataParserConfig(eval_mode="interval", eval_interval=100), copy("ngp"))


def _single(folder: Path) -> Path:
    def change(content):
        content["test_filenames"] = content["test_filenames"][:1]
        for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
            value = content.pop(key)
            for frame in content["frames"]:
                frame[key] = value

    edit(folder / "transforms.json", change)
    return folder


def test_colmap_without_points_and_with_lists(copy):
    folder = copy("colmap")
    (folder / "colmap/sparse/0/points3D.txt").write_text("")
    assert "points3D_xyz" not in read(ColmapDataParserConfig(), folder).metadata
    (folder / "train_list.txt").write_text("train_000.png\ntrain_003.png\n\n")
    (folder / "validation_list.txt").write_text("val_001.png\n")
    names = {
        split: [p.name for p in read(ColmapDataParserConfig(), folder, split).image_filenames]
        for split in ("train", "val", "test")
    }
    assert names == {"train": ["train_000.png", "train_003.png"], "val": ["val_001.png"], "test": ["val_001.png"]}
    (folder / "validation_list.txt").write_text("val_009.png\n")
    with pytest.raises(SceneError, match=r"names .*val_009\.png, which the COLMAP model has not"):
        read(ColmapDataParserConfig(), folder, "val")


def shift_json(path: Path) -> None:
    def change(content):
        for frame in content["frames"]:
            for row, offset in zip(frame["transform_matrix"], MAP):
                row[3] += float(offset)

    edit(path, change)


def shift(layout: str, folder: Path) -> None:
    """Move a scene to map coordinates."""
    if layout in ("nerfstudio", "ngp"):
        shift_json(folder / "transforms.json")
    elif layout == "blender":
        for path in folder.glob("transforms_*.json"):
            shift_json(path)
    elif layout == "colmap":
        path = folder / "colmap/sparse/0/images.txt"
        lines = path.read_text().splitlines()
        for number in range(0, len(lines), 2):
            words = lines[number].split()
            w, x, y, z = map(float, words[1:5])
            rotation = np.array(
                [
                    [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                    [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                    [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
                ]
            )
            words[5:8] = [repr(float(value)) for value in np.array(words[5:8], dtype=float) - rotation @ MAP]
            lines[number] = " ".join(words)
        path.write_text("\n".join(lines) + "\n")
    else:
        for path in (folder / "pose").glob("*.txt"):
            pose = np.loadtxt(path)
            pose[:3, 3] += MAP
            np.savetxt(path, pose, fmt="%.12g")


@pytest.mark.parametrize(
    ("layout", "config"),
    [
        ("blender", BlenderDataParserConfig()),
        ("nsvf", NSVFDataParserConfig()),
        ("nerfstudio", NerfstudioDataParserConfig()),
        (
            "nerfstudio",
            NerfstudioDataParserConfig(center_method="none", orientation_method="none", auto_scale_poses=False),
        ),
        ("colmap", ColmapDataParserConfig()),
    ],
)
def test_map_coordinates_keep_the_shape_of_the_scene(copy, layout, config):
    folder = copy(layout)
    before = {split: read(config, folder, split) for split in ("train", "test")}
    shift(layout, folder)
    after = {split: read(config, folder, split) for split in ("train", "test")}
    positions = [
        torch.cat([outputs[split].cameras.camera_to_worlds[:, :, 3] for split in ("train", "test")])
        for outputs in (before, after)
    ]
    torch.testing.assert_close(
        torch.cdist(positions[1], positions[1]), torch.cdist(positions[0], positions[0]), atol=2e-5, rtol=1e-4
    )
    assert float(positions[1].abs().max()) < 10
    transform = after["test"].dataparser_transform
    assert float(transform[:, 3].abs().max()) > 1e5


def test_points_of_blender_files_do_not_move(copy):
    folder = copy("blender")
    shift("blender", folder)
    with pytest.raises(SceneError, match=r"--ply-path points\.ply cannot be used .* subtract \[51234\d"):
        read(BlenderDataParserConfig(ply_path=Path("points.ply")), folder)


def test_map_coordinates_of_instant_ngp_are_refused(copy):
    folder = copy("ngp")
    shift("ngp", folder)
    with pytest.raises(SceneError, match=r"poses around \[512345.*subtract"):
        read(InstantNGPDataParserConfig(), folder)


def test_a_transposed_pose_is_refused(copy):
    folder = copy("blender")
    edit_blender(
        folder, lambda c: [f.update(transform_matrix=np.transpose(f["transform_matrix"]).tolist()) for f in c["frames"]]
    )
    with pytest.raises(SceneError, match=r"last row is .* is it transposed\? \(and 5 more of this kind\)"):
        read(BlenderDataParserConfig(), folder)
