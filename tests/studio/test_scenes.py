"""Scenes on disk: what is wrong with them is said in one sentence; pixels and rays are what the files hold."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from perception.datasets.synthetic import radiance
from perception.geometry.rays import pixel_rays
from perception.studio.camera_checks import check_inward_facing
from perception.studio.datamanager import RayDataManager, RayDataManagerConfig, unnormalised
from perception.studio.errors import SceneError
from perception.studio.nsvf_dataparser import NSVFDataParserConfig
from perception.studio.scene import describe_parser, scene_views

pytestmark = pytest.mark.xdist_group("nerfstudio")
PARAMS = {"num_train": 5, "num_val": 2, "num_test": 3, "size": 20, "num_objects": 2}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    for layout in ("blender", "nsvf", "tanks", "nerfstudio"):
        radiance.write(folder / layout, radiance.Params(**PARAMS, layout=layout))
    return folder


@pytest.fixture
def scene(scenes, tmp_path):
    """A copy of the scene in Blender layout that a test may damage."""
    return shutil.copytree(scenes / "blender", tmp_path / "scene")


def manager(folder, parser=None, **settings) -> RayDataManager:
    config = RayDataManagerConfig(dataparser=parser or BlenderDataParserConfig(), data=folder, **settings)
    torch.manual_seed(42)
    return RayDataManager(config)


def test_parsers_agree_on_cameras_and_pixels(scenes):
    parsers = {
        "blender": None,
        "nsvf": NSVFDataParserConfig(),
        "tanks": NSVFDataParserConfig(),
        "nerfstudio": NerfstudioDataParserConfig(
            orientation_method="none", center_method="none", auto_scale_poses=False, load_3D_points=False
        ),
    }
    made = {name: manager(scenes / name, parser) for name, parser in parsers.items()}
    expected = made["blender"]
    for name, other in made.items():
        assert len(other.train_dataset) == 5
        torch.testing.assert_close(
            other.train_dataset.cameras.camera_to_worlds, expected.train_dataset.cameras.camera_to_worlds, msg=name
        )
        focal = [dataset.cameras.fx.float() for dataset in (other.train_dataset, expected.train_dataset)]
        torch.testing.assert_close(*focal, rtol=1e-5, atol=0)
        assert torch.equal(other.pixels.table, expected.pixels.table)
    assert len(made["tanks"].split_dataset("test")) == 5  # validation and test views


def test_depth_ranges_of_nsvf_and_tanks(scenes):
    nsvf, tanks = (
        NSVFDataParserConfig(data=scenes / name).setup().get_dataparser_outputs("train") for name in ("nsvf", "tanks")
    )
    centres = nsvf.cameras.camera_to_worlds[:, :, 3]
    far = float(torch.cdist(centres, centres).max())
    assert nsvf.metadata == {"near": pytest.approx(0.05 * far), "far": pytest.approx(far)}
    assert tanks.metadata["near"] == 0
    bounds = radiance.scene_of(radiance.Params(**PARAMS)).bounds()
    np.testing.assert_allclose(nsvf.scene_box.aabb, bounds, atol=1e-5)


def test_rays_are_those_of_the_paper(scenes):
    made = manager(scenes / "blender", train_num_rays_per_batch=300)
    bundle, batch = made.next_train(0)
    rays_o, rays_d, viewdirs = unnormalised(bundle)
    focal = radiance.Params(**PARAMS).focal
    intrinsics = torch.tensor([[focal, 0, 10], [0, focal, 10], [0, 0, 1]])
    poses = made.train_dataset.cameras.camera_to_worlds
    expected = [pixel_rays(20, 20, intrinsics, pose) for pose in poses]
    for index, (camera, row, column) in enumerate(batch["indices"].tolist()):
        torch.testing.assert_close(rays_o[index], poses[camera, :, 3])
        torch.testing.assert_close(rays_d[index], expected[camera][1][row, column], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(viewdirs.norm(dim=-1), torch.ones(300))


def test_colours_are_those_of_float_compositing(scenes):
    made = manager(scenes / "blender", train_num_rays_per_batch=500)
    _, batch = made.next_train(3)
    for index, (camera, row, column) in enumerate(batch["indices"].tolist()):
        expected = made.train_dataset[camera]["image"][row, column]
        torch.testing.assert_close(batch["image"][index], expected, atol=1e-7, rtol=1e-6)
    assert float((batch["image"] == 1).float().mean()) > 0.1  # white background


def test_draws_depend_on_seed_and_step_alone(scenes):
    first = manager(scenes / "blender", train_num_rays_per_batch=64)
    second = manager(scenes / "blender", train_num_rays_per_batch=64)
    assert torch.equal(first.draw(7), second.draw(7))
    assert not torch.equal(first.draw(7), first.draw(8))
    pool = torch.arange(0, 1000, 3)
    first.use_pool(pool, start_step=10)
    second.use_pool(pool, start_step=10)
    steps = -(-3 * len(pool) // 64)
    drawn = torch.cat([first.draw(10 + step) for step in range(steps)])
    assert torch.equal(second.draw(10 + steps - 1), drawn[-64:])  # as a resumed run would
    for epoch in range(2):
        part = drawn[epoch * len(pool) : (epoch + 1) * len(pool)]
        assert torch.equal(part.sort().values, pool)
    assert not torch.equal(drawn[: len(pool)], drawn[len(pool) : 2 * len(pool)])


def test_all_training_rays_come_view_by_view(scenes):
    made = manager(scenes / "blender")
    views = made.training_views(chunk=150)
    chunks = list(views)
    assert [view for view, *_ in chunks] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert sum(len(rays_o) for _, rays_o, _, _ in chunks) == views.num_rays == 5 * 400
    assert made.training_views(stride=3).num_rays == sum(len(c[1]) for c in made.training_views(stride=3)) == 5 * 49


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def set_pose(value):
    def change(content):
        content["frames"][2]["transform_matrix"][0][0] = value

    return change


FAULTS = {
    "no folder": (lambda s: shutil.rmtree(s), "there is no scene"),
    "no transforms": (lambda s: (s / "transforms_train.json").unlink(), r"has no transforms_train\.json"),
    "no json": (lambda s: (s / "transforms_train.json").write_text("{"), "not readable JSON"),
    "no frames": (lambda s: edit(s / "transforms_train.json", lambda c: c.update(frames=[])), "lists no frames"),
    "missing image": (lambda s: (s / "train/r_001.png").unlink(), "there is no image"),
    "broken image": (lambda s: (s / "train/r_001.png").write_bytes(b"\x89PNG nonsense"), r"cannot read .*r_001\.png"),
    "opaque": (
        lambda s: Image.open(s / "train/r_003.png").convert("RGB").save(s / "train/r_003.png"),
        "3 channels, but a scene in Blender layout needs RGBA",
    ),
    "sixteen bits": (
        lambda s: Image.fromarray(np.zeros((20, 20), np.uint16)).save(s / "train/r_002.png"),
        "8-bit RGB or RGBA",
    ),
    "other size": (lambda s: Image.new("RGBA", (20, 10)).save(s / "train/r_002.png"), "20 x 10 pixels, but its camera"),
    "nan pose": (lambda s: edit(s / "transforms_train.json", set_pose(math.nan)), "not finite"),
    "no rotation": (lambda s: edit(s / "transforms_train.json", set_pose(5.0)), "not a rotation"),
    "text pose": (lambda s: edit(s / "transforms_train.json", set_pose("x")), "matrix of numbers"),
    "zero focal": (
        lambda s: edit(s / "transforms_train.json", lambda c: c.update(camera_angle_x=0.0)),
        "camera_angle_x must lie between 0 and pi",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_scenes_end_in_one_sentence(scene, fault):
    damage, sentence = FAULTS[fault]
    damage(scene)
    with pytest.raises(SceneError, match=sentence) as caught:
        manager(scene)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SystemExit)
    assert caught.value.code == f"error: {caught.value}"


def test_opaque_images_can_be_allowed(scene):
    for path in (scene / "train").glob("*.png"):
        Image.open(path).convert("RGB").save(path)
    assert manager(scene, allow_opaque=True).pixels.table.shape[1] == 3


def test_another_layout_names_its_parser(scenes):
    with pytest.raises(SceneError, match="add `nsvf-data` at the end"):
        manager(scenes / "nsvf")
    with pytest.raises(SceneError, match="add `nerfstudio-data`"):
        manager(scenes / "nerfstudio")


NSVF_FAULTS = {
    "no intrinsics": (lambda s: (s / "intrinsics.txt").unlink(), r"has no .*intrinsics\.txt"),
    "zero focal": (lambda s: (s / "intrinsics.txt").write_text("0 1 1 0\n"), "must be positive"),
    "text": (lambda s: (s / "intrinsics.txt").write_text("focal\n"), "numbers only"),
    "pose missing": (lambda s: (s / "pose/0_train_0002.txt").unlink(), r"has no pose .* \(9 poses in all\)"),
    "pose short": (lambda s: (s / "pose/0_train_0002.txt").write_text("1 0 0 0\n"), "4 x 4"),
    "pose nan": (lambda s: np.savetxt(s / "pose/0_train_0002.txt", np.full((4, 4), np.nan)), "not finite"),
    "no images": (lambda s: shutil.rmtree(s / "rgb"), "no images of the train split"),
}


@pytest.mark.parametrize("fault", NSVF_FAULTS)
def test_bad_nsvf_scenes_end_in_one_sentence(scenes, tmp_path, fault):
    folder = shutil.copytree(scenes / "nsvf", tmp_path / "nsvf")
    damage, sentence = NSVF_FAULTS[fault]
    damage(folder)
    with pytest.raises(SceneError, match=sentence):
        manager(folder, NSVFDataParserConfig())


def test_cameras_must_look_inwards(scenes):
    cameras = manager(scenes / "blender").train_dataset.cameras
    check_inward_facing(cameras)
    outwards = cameras[:]
    outwards.camera_to_worlds = cameras.camera_to_worlds.clone()
    outwards.camera_to_worlds[:, :, [0, 2]] *= -1
    with pytest.raises(SceneError, match="unbounded"):
        check_inward_facing(outwards)
    parallel = cameras[:]
    parallel.camera_to_worlds = cameras.camera_to_worlds.clone()
    parallel.camera_to_worlds[:, :, :3] = cameras.camera_to_worlds[0, :, :3]
    with pytest.raises(SceneError, match="one direction"):
        check_inward_facing(parallel)


def test_views_without_a_run(scenes):
    views = scene_views(scenes / "nsvf", "test", torch.zeros(3))
    assert len(views) == 3
    assert views[0]["image"].shape == (20, 20, 3)
    parser = describe_parser(NerfstudioDataParserConfig(orientation_method="none", center_method="none"))
    assert parser == {"name": "nerfstudio-data", "options": {"orientation_method": "none", "center_method": "none"}}
    with pytest.raises(SceneError, match="none of the layouts"):
        scene_views(scenes, "test", torch.zeros(3))
