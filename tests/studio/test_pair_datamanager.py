"""Rays of small images with the pixels of large ones beside them, from files of two sizes and of one."""

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from PIL import Image

from perception.datasets.synthetic import radiance, shelves
from perception.radiance.tiles import tile_grid
from perception.studio.errors import SceneError
from perception.studio.llff_dataparser import LLFFDataParserConfig
from perception.studio.pair_datamanager import PairDataManager, PairDataManagerConfig
from perception.studio.resume import scene_difference, scene_record
from perception.studio.samplers import PatchSamplerConfig, PoolSamplerConfig
from tests.studio.llff_scenes import LARGE, PARAMS

pytestmark = pytest.mark.xdist_group("nerfstudio")
SIZE = 26  # of the large images in Blender layout: no multiple of 4


@pytest.fixture
def forward(tmp_path):
    """A scene with images of 96 x 64 pixels and of a quarter of that."""
    shelves.write(tmp_path / "forward", PARAMS)
    return tmp_path / "forward"


@pytest.fixture
def object_scene(tmp_path):
    """A scene of one size, with transparency."""
    out = tmp_path / "object"
    radiance.write(out, radiance.Params(num_train=3, num_val=1, num_test=1, size=SIZE, num_objects=1))
    return out


def manager(folder, parser, scale=4, **settings) -> PairDataManager:
    torch.manual_seed(0)
    config = PairDataManagerConfig(
        dataparser=parser, data=folder, sampler=PatchSamplerConfig(side=5), scale=scale, eval_num_rays_per_batch=40
    )
    for name, value in settings.items():
        setattr(config, name, value)
    return PairDataManager(config)


def llff(folder, **settings) -> PairDataManager:
    return manager(folder, LLFFDataParserConfig(sr_scale=4), **settings)


def test_tiles_of_both_images_show_the_same_place(forward):
    made = llff(forward)
    assert made.pixels.sizes == [(LARGE[1] // 4, LARGE[0] // 4)] * len(made.train_dataset)
    cameras = made.train_dataset.cameras
    assert (int(cameras.width[0]), int(cameras.height[0])) == LARGE
    assert len(made.sampler.tiles) == len(made.train_dataset) * len(tile_grid(16, 24, 5))
    whole = [torch.from_numpy(np.asarray(Image.open(path))) / 255 for path in made.train_dataset.image_filenames]
    for step in range(12):
        rays, batch = made.next_train(step)
        view, (row, column, height, width) = batch["tile"]
        high = whole[view][4 * row : 4 * (row + height), 4 * column : 4 * (column + width)]
        assert torch.equal(batch["high"], high)
        averaged = high.view(height, 4, width, 4, 3).mean((1, 3)).reshape(-1, 3)
        assert float((batch["image"] - averaged).abs().max()) < 0.02  # the small files are averages, in 8 bits
        assert len(rays) == height * width
    made.use(PoolSamplerConfig())
    assert "high" not in made.next_train(0)[1]


def test_a_small_pixels_ray_goes_through_the_middle_of_its_square(forward):
    made = llff(forward)
    indices = torch.tensor([[2, 3, 7]])
    ray = made.train_ray_generator(indices)
    corner = torch.tensor([[4.0 * 3 + 2, 4.0 * 7 + 2]])  # of the large image, where its four middle pixels meet
    large = made.train_dataset.cameras.generate_rays(camera_indices=indices[:, :1], coords=corner)
    torch.testing.assert_close(ray.origins, large.origins)
    torch.testing.assert_close(ray.directions, large.directions, atol=1e-6, rtol=0)


def test_small_images_are_made_of_large_ones(object_scene):
    """On their background, without the remainder of a side."""
    made = manager(object_scene, BlenderDataParserConfig())
    assert made.pixels.sizes == [(6, 6)] * 3
    for view in range(3):
        image = made.train_dataset[view]["image"]
        assert image.shape == (24, 24, 3)
        expected = image.view(6, 4, 6, 4, 3).mean((1, 3)).reshape(-1, 3)
        colours = made.pixels.table[36 * view : 36 * (view + 1)]
        torch.testing.assert_close(colours, expected, atol=1e-6, rtol=0)
    camera, batch = next(iter(made.fixed_indices_eval_dataloader))
    assert batch["image"].shape == (24, 24, 3)
    assert (int(camera.width), int(camera.height)) == (24, 24)
    rays, batch = made.next_eval(3)
    assert len(rays) == 40
    assert int(batch["indices"][:, 1:].max()) < 6
    view, row, column = batch["indices"][0].tolist()
    average = made.eval_dataset[view]["image"][4 * row : 4 * row + 4, 4 * column : 4 * column + 4].mean((0, 1))
    torch.testing.assert_close(batch["image"][0], average, atol=1e-6, rtol=0)
    assert sum(len(rays_o) for _, rays_o, _, _ in made.training_views()) == 3 * 36


def test_as_many_large_images_are_held_as_the_settings_say(forward):
    free, bound = llff(forward), llff(forward, images_in_memory=2)
    for step in range(30):
        assert torch.equal(free.next_train(step)[1]["high"], bound.next_train(step)[1]["high"])
    assert len(bound.pixels.large) <= 2 < len(free.pixels.large)
    assert torch.equal(free.pixels.checksums(), bound.pixels.checksums())


def test_another_large_image_is_another_scene(forward):
    before = scene_record(llff(forward))
    path = llff(forward).train_dataset.image_filenames[1]
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    assert "1 of" in (scene_difference(before, scene_record(llff(forward))) or "")


def test_what_does_not_go_together_is_said(forward, object_scene):
    with pytest.raises(SceneError, match="2 times larger, but the scene pairs them at 4"):
        llff(forward, scale=2)
    for settings, match in (
        ({"scale": 0}, "scale must be at least 1, not 0"),
        ({"camera_res_scale_factor": 0.5}, "camera-res-scale-factor has no effect on images of two resolutions"),
    ):
        with pytest.raises(SceneError, match=match):
            manager(object_scene, BlenderDataParserConfig(), **settings)
