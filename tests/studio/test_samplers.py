"""What samplers draw: by step alone, each tile or pixel as often as it should, from the views that are shown."""

import pytest
import torch
import tyro
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig

from perception.datasets.synthetic import radiance
from perception.radiance.tiles import tile_grid
from perception.studio.datamanager import RayDataManager, RayDataManagerConfig
from perception.studio.errors import SceneError
from perception.studio.samplers import (
    PatchSamplerConfig,
    PoolSamplerConfig,
    RandomSamplerConfig,
    ViewsSamplerConfig,
)

pytestmark = pytest.mark.xdist_group("nerfstudio")
SIZE, VIEWS, SIDE = 20, 3, 8
TILES = VIEWS * 9  # 8 + 8 + 4 pixels along each side


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "scene"
    radiance.write(out, radiance.Params(num_train=VIEWS, num_val=1, num_test=1, size=SIZE, num_objects=1))
    return out


def manager(scene, test_mode="val", seed=42, **settings) -> RayDataManager:
    torch.manual_seed(seed)
    config = RayDataManagerConfig(
        dataparser=BlenderDataParserConfig(), data=scene, train_num_rays_per_batch=32, **settings
    )
    return RayDataManager(config, test_mode=test_mode)


def test_each_tile_comes_once_per_epoch(scene):
    made = manager(scene, sampler=PatchSamplerConfig(side=SIDE))
    assert made.get_train_rays_per_batch() == SIDE**2
    expected = {(view, tile) for view in range(VIEWS) for tile in tile_grid(SIZE, SIZE, SIDE)}
    epochs = []
    for epoch in range(2):
        steps = range(epoch * TILES, (epoch + 1) * TILES)
        epochs.append([made.next_train(step)[1]["tile"] for step in steps])
        assert len(epochs[-1]) == len(expected)
        assert set(epochs[-1]) == expected
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


def test_a_tiles_pixels_come_row_by_row(scene):
    made = manager(scene, sampler=PatchSamplerConfig(side=SIDE))
    for step in range(6):
        rays, batch = made.next_train(step)
        view, (row, column, height, width) = batch["tile"]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        places = batch["indices"].view(height, width, 3)
        assert bool((places[..., 0] == view).all())
        assert torch.equal(places[..., 1], row + rows)
        assert torch.equal(places[..., 2], column + columns)
        image = made.train_dataset[view]["image"][row : row + height, column : column + width]
        torch.testing.assert_close(batch["image"].view(height, width, 3), image, atol=1e-7, rtol=0)
        torch.testing.assert_close(made.pixels.tile_colours(batch["tile"], made.background), image, atol=1e-7, rtol=0)
        assert len(rays) == height * width


@pytest.mark.parametrize(
    "sampler",
    [
        RandomSamplerConfig(),
        PoolSamplerConfig(),
        PatchSamplerConfig(side=SIDE),
        ViewsSamplerConfig((0, 2), PatchSamplerConfig(side=SIDE)),
    ],
)
def test_draws_are_a_function_of_seed_and_step(scene, sampler):
    """A resumed run draws what the uninterrupted one would; another seed draws otherwise."""
    first, second, other = manager(scene), manager(scene), manager(scene, seed=7)
    for made in (first, second, other):
        made.use(sampler, start=5)
    walked = [first.draw(step) for step in range(5, 5 + 2 * TILES)]
    assert torch.equal(second.draw(5 + 2 * TILES - 1), walked[-1])
    assert torch.equal(second.draw(9), walked[4])
    assert any(not torch.equal(other.draw(5 + number), drawn) for number, drawn in enumerate(walked[:10]))


def test_tiles_in_which_too_little_can_be_drawn_are_left_out(scene):
    """4K-NeRF's patches of bounded scenes: more than half of their rays must hit something."""
    made = manager(scene)
    hit = torch.zeros(VIEWS, SIZE, SIZE, dtype=torch.bool)
    hit[0, :8, :8] = True  # all 64 of the first tile
    hit[1, 8:12, 8:16] = True  # 32 of another
    hit[1, 8, 0] = True
    pixels = hit.flatten().nonzero()[:, 0].int()
    kept = {}
    for least in (0, 31, 32, 63):
        made.use(PatchSamplerConfig(SIDE, min_pixels=least), pixels=pixels)
        kept[least] = [(view, *tile[:2]) for view, tile in made.sampler.tiles]
    assert kept == {0: [(0, 0, 0), (1, 8, 0), (1, 8, 8)], 31: [(0, 0, 0), (1, 8, 8)], 32: [(0, 0, 0)], 63: [(0, 0, 0)]}
    with pytest.raises(SceneError, match="no tile of 8 pixels per side has more than 64"):
        made.use(PatchSamplerConfig(SIDE, min_pixels=64), pixels=pixels)
    with pytest.raises(SceneError, match="side 0"):
        made.use(PatchSamplerConfig(0))


def test_a_subset_of_views(scene):
    made = manager(scene, sampler=ViewsSamplerConfig((2, 0)))
    drawn = torch.cat([made.next_train(step)[1]["indices"][:, 0] for step in range(10)])
    assert drawn.unique().tolist() == [0, 2]
    hits = torch.arange(0, VIEWS * SIZE**2, 7)
    made.use(ViewsSamplerConfig((1,), PoolSamplerConfig()), pixels=hits)
    assert sorted(made.sampler.pool.tolist()) == [pixel for pixel in hits.tolist() if pixel // SIZE**2 == 1]
    for wrong in ((3,), (-1,), ()):
        with pytest.raises(SceneError, match="numbered from 0 to 2"):
            made.use(ViewsSamplerConfig(wrong))


def test_views_may_grow_during_a_run(scene):
    """As where a method buys views: whatever is drawn, and passes over all rays, follows."""
    made = manager(scene)
    made.pixels.show([1])
    for sampler in (RandomSamplerConfig(), PoolSamplerConfig(), PatchSamplerConfig(SIDE)):
        made.use(sampler)
        seen = torch.cat([made.next_train(step)[1]["indices"][:, 0] for step in range(12)])
        assert seen.unique().tolist() == [1]
    made.use_random()
    made.pixels.show([1, 2])
    seen = torch.cat([made.next_train(step)[1]["indices"][:, 0] for step in range(12)])
    assert seen.unique().tolist() == [1, 2]
    views = made.training_views()
    assert views.num_rays == sum(len(rays_o) for _, rays_o, _, _ in views) == 2 * SIZE**2
    chosen = torch.zeros(2 * SIZE**2, dtype=torch.bool)
    chosen[SIZE**2 + 3] = True
    assert made.pixels.shown(chosen).tolist() == [2 * SIZE**2 + 3]
    with pytest.raises(SceneError, match="numbered from 0 to 2"):
        made.pixels.show([3])


def test_the_number_of_rays_may_change(scene):
    made = manager(scene)
    made.set_num_rays(5)
    assert made.get_train_rays_per_batch() == len(made.next_train(3)[0]) == 5


def test_exporters_see_the_whole_scene(scene):
    """Whatever a method trains on; they set the number of rays."""
    made = manager(scene, "test", sampler=PatchSamplerConfig(SIDE))
    made.train_pixel_sampler.num_rays_per_batch = 500
    rays, batch = made.next_train(0)
    assert len(rays) == 500
    assert len(batch["indices"][:, 0].unique()) == VIEWS


def test_settings_are_options_of_the_command_line():
    default = RayDataManagerConfig(sampler=PatchSamplerConfig())
    made = tyro.cli(RayDataManagerConfig, default=default, args=["--sampler.side", "48", "--images-in-memory", "2"])
    assert made.sampler == PatchSamplerConfig(side=48)
    assert made.images_in_memory == 2
