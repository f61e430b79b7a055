"""Images of differing sizes, cameras and masks as one table of pixels, and what is drawn from it."""

import json

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from perception.datasets.synthetic import radiance
from perception.studio.datamanager import RayDataManager, RayDataManagerConfig
from perception.studio.errors import SceneError

pytestmark = pytest.mark.xdist_group("nerfstudio")

# height, width, channels, fl_x, fl_y, cx, cy: no two alike, no centre in the middle
VIEWS = [(16, 12, 4, 20.0, 22.0, 5.0, 9.0), (10, 14, 3, 18.0, 17.0, 8.0, 4.5), (9, 11, 4, 15.0, 16.0, 6.0, 5.0)]
NUM_PIXELS = sum(height * width for height, width, *_ in VIEWS)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """A scene whose images differ in size, channels and intrinsics; its first view is measured as well."""
    folder = tmp_path_factory.mktemp("uneven")
    rng = np.random.default_rng(3)
    frames = []
    for number, (height, width, channels, *intrinsics) in enumerate(VIEWS):
        pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        mask = np.full((height, width), 255, np.uint8)
        mask[: number + 1] = 0
        Image.fromarray(mask).save(folder / f"mask_{number}.png")
        direction = rng.normal(size=3)
        frame = {
            "file_path": f"{number}.png",
            "transform_matrix": radiance.look_at_origin(direction / np.linalg.norm(direction)).tolist(),
            "h": height,
            "w": width,
        }
        frames.append(frame | dict(zip(("fl_x", "fl_y", "cx", "cy"), intrinsics)))
    names = [frame["file_path"] for frame in frames]
    content = {"frames": frames, "train_filenames": names, "val_filenames": names[:1], "test_filenames": names[:1]}
    (folder / "transforms.json").write_text(json.dumps(content))
    for number, frame in enumerate(frames):
        frame["mask_path"] = f"mask_{number}.png"
    (folder / "masked.json").write_text(json.dumps(content))
    return folder


def uneven_manager(data, **settings) -> RayDataManager:
    parser = NerfstudioDataParserConfig(
        orientation_method="none", center_method="none", auto_scale_poses=False, load_3D_points=False
    )
    torch.manual_seed(settings.pop("seed", 42))
    return RayDataManager(RayDataManagerConfig(dataparser=parser, data=data, **settings))


@pytest.fixture(scope="module")
def even(tmp_path_factory):
    folder = tmp_path_factory.mktemp("even")
    radiance.write(folder, radiance.Params(num_train=4, num_val=2, num_test=1, size=16, num_objects=1))
    return folder


def even_manager(data, test_mode="val", **settings) -> RayDataManager:
    torch.manual_seed(42)
    return RayDataManager(
        RayDataManagerConfig(dataparser=BlenderDataParserConfig(), data=data, **settings), test_mode=test_mode
    )


def test_one_index_counts_the_pixels_of_all_images(uneven):
    made = uneven_manager(uneven)
    expected = [
        (image, row, column)
        for image, (height, width, *_) in enumerate(VIEWS)
        for row in range(height)
        for column in range(width)
    ]
    every = torch.arange(NUM_PIXELS)
    assert made.pixels.positions(every).tolist() == [list(place) for place in expected]
    colours = made.pixels.colours(every, made.background)
    composited = torch.cat([made.train_dataset[image]["image"].reshape(-1, 3) for image in range(3)])
    torch.testing.assert_close(colours, composited, atol=1e-7, rtol=0)
    opaque = made.pixels.positions(every)[:, 0] == 1
    raw = np.asarray(Image.open(uneven / "1.png"), np.float32).reshape(-1, 3) / 255
    torch.testing.assert_close(colours[opaque], torch.from_numpy(raw), atol=0, rtol=0)


@pytest.mark.parametrize(("colour", "value"), [("white", 1.0), ("black", 0.0)])
def test_background_where_the_parser_names_none(uneven, tmp_path, colour, value):
    made = uneven_manager(uneven, background=colour)
    raw = np.asarray(Image.open(uneven / "0.png"), np.float64) / 255
    expected = raw[..., :3] * raw[..., 3:] + value * (1 - raw[..., 3:])
    colours = made.pixels.colours(torch.arange(16 * 12), made.background).view(16, 12, 3)
    np.testing.assert_allclose(colours.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(made.eval_dataset[0]["image"].numpy(), expected, atol=1e-6)


def test_rays_pass_through_pixel_centres(uneven):
    """DirectVoxGO's rays: ``((i + 0.5 - cx) / fx, -(j + 0.5 - cy) / fy, -1)`` turned by the pose."""
    made = uneven_manager(uneven)
    poses = made.train_dataset.cameras.camera_to_worlds
    chunks = list(made.training_views(chunk=50))
    for number, (height, width, _, fl_x, fl_y, cx, cy) in enumerate(VIEWS):
        rays_o, rays_d, viewdirs = (
            torch.cat([chunk[part] for chunk in chunks if chunk[0] == number]).view(height, width, 3)
            for part in (1, 2, 3)
        )
        rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        local = torch.stack([(columns - cx) / fl_x, -(rows - cy) / fl_y, -torch.ones_like(rows)], -1)
        expected = local @ poses[number, :, :3].T
        assert torch.equal(rays_o, poses[number, :, 3].expand(height, width, 3))
        torch.testing.assert_close(rays_d, expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(viewdirs, expected / expected.norm(dim=-1, keepdim=True), atol=1e-6, rtol=0)


def test_masked_pixels_are_never_drawn(uneven):
    made = uneven_manager(uneven / "masked.json", train_num_rays_per_batch=200)
    free = sum((height - number - 1) * width for number, (height, width, *_) in enumerate(VIEWS))
    assert len(made.pixels.usable) == free
    drawn = torch.cat([made.next_train(step)[1]["indices"] for step in range(10)])
    assert bool((drawn[:, 1] > drawn[:, 0]).all())  # the mask of image n covers its rows 0 to n
    for number in range(3):
        Image.new("L", VIEWS[number][1::-1]).save(uneven / f"mask_{number}.png")
    with pytest.raises(SceneError, match="exclude every pixel"):
        uneven_manager(uneven / "masked.json")


def test_random_draws_are_uniform(uneven):
    made = uneven_manager(uneven, train_num_rays_per_batch=4000)
    counts = torch.cat([made.draw(step) for step in range(20)]).bincount(minlength=NUM_PIXELS).float()
    mean = 80_000 / NUM_PIXELS
    chi_square = float(((counts - mean) ** 2 / mean).sum())
    assert abs(chi_square - NUM_PIXELS) < 5 * (2 * NUM_PIXELS) ** 0.5
    other = uneven_manager(uneven, train_num_rays_per_batch=4000, seed=43)
    assert not torch.equal(other.draw(0), made.draw(0))


def test_a_pool_smaller_than_a_batch_is_drawn_evenly(uneven):
    made = uneven_manager(uneven, train_num_rays_per_batch=25)
    pool = torch.tensor([3, 8, 30, 31, 200, 7, 90], dtype=torch.int32)
    made.use_pool(pool, start_step=4)
    assert made.pool_start == 4
    for step in (4, 5, 11):
        counts = made.draw(step).bincount(minlength=NUM_PIXELS)[pool.long()]
        assert int(counts.sum()) == 25
        assert set(counts.tolist()) <= {3, 4, 5}  # at most two begun epochs beside the whole ones
    made.use_random()
    assert made.pool_start is None
    assert len(made.draw(5).unique()) > len(pool)
    with pytest.raises(SceneError, match="no training ray hits anything"):
        made.use_pool(pool[:0], 0)


def test_scaled_cameras_have_scaled_images(even):
    made = even_manager(even, camera_res_scale_factor=0.5)
    assert made.pixels.sizes == [(8, 8)] * 4
    full = even_manager(even)
    assert float(made.train_dataset.cameras.fx[0]) == pytest.approx(float(full.train_dataset.cameras.fx[0]) / 2)
    assert float(made.train_dataset.cameras.cx[0]) == 4
    mean = [
        manager.pixels.colours(torch.arange(len(manager.pixels.table)), torch.ones(3)).mean()
        for manager in (made, full)
    ]
    assert abs(float(mean[0] - mean[1])) < 0.01


def test_evaluation_sees_whole_composited_images(even):
    made = even_manager(even, eval_num_rays_per_batch=50)
    assert made.get_train_rays_per_batch() == 8192
    loaded = list(made.fixed_indices_eval_dataloader)
    assert [batch["image_idx"] for _, batch in loaded] == [0, 1]
    for number, (camera, batch) in enumerate(loaded):
        raw = np.asarray(Image.open(even / f"val/r_{number:03d}.png"), np.float64) / 255
        expected = raw[..., :3] * raw[..., 3:] + (1 - raw[..., 3:])
        np.testing.assert_allclose(batch["image"].numpy(), expected, atol=1e-6)
        torch.testing.assert_close(camera.camera_to_worlds[0], made.eval_dataset.cameras.camera_to_worlds[number])
    camera, batch = made.next_eval_image(0)
    assert camera.shape == (1,)
    assert batch["image"].shape == (16, 16, 3)
    rays, batch = made.next_eval(7)
    images = [image["image"] for _, image in loaded]
    for ray, (number, row, column), colour in zip(rays, batch["indices"].tolist(), batch["image"]):
        assert torch.equal(colour, images[number][row, column])
        assert int(ray.camera_indices) == number


def test_evaluation_images_are_read_when_they_are_needed(even, tmp_path):
    made = even_manager(even)
    path = made.eval_dataset.image_filenames[1]
    content = path.read_bytes()
    try:
        path.write_bytes(b"nonsense")
        with pytest.raises(SceneError, match=r"cannot read .*r_001\.png"):
            list(made.fixed_indices_eval_dataloader)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize(("mode", "count"), [("val", 2), ("test", 1), ("inference", 1)])
def test_modes_choose_the_evaluated_split(even, mode, count):
    made = even_manager(even, mode)
    assert len(made.eval_dataset) == count
    assert hasattr(made, "pixels") == (mode != "inference")  # rendering needs no training images
