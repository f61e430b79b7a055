"""The methods as nerfstudio runs them: acquisition, pools, exact resume, evaluation, what is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.scripts.render import DatasetRender
from nerfstudio.utils.eval_utils import eval_setup
from PIL import Image

from perception.datasets.synthetic import radiance, shelves
from perception.engine.checkpoint import load_checkpoint_file
from perception.geometry.rays import NDC
from perception.studio.errors import SceneError
from perception.studio.evaluation import measure_split
from projects.activenerf.acquisition import farthest_views
from projects.activenerf.config import activenerf, activenerf_i, activenerf_ii, activenerf_llff
from projects.activenerf.converter import authors, ours, read_parts, to_authors, to_perception
from projects.activenerf.scoring import camera_rays, score_views
from tests.projects.activenerf.runs import ACTIVE, ITERS, make_trainer, small_config, train

pytestmark = pytest.mark.xdist_group("nerfstudio")
SIDE = 16


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "scene"
    radiance.write(out, radiance.Params(num_train=8, num_val=2, num_test=2, size=SIDE, num_objects=2))
    return out


@pytest.fixture(scope="module")
def forward_facing(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "shelves"
    shelves.write(out, shelves.Params(views=9, height=15, width=21, scale=2))
    return out


@pytest.fixture(scope="module")
def finished(scene, tmp_path_factory):
    """A run from beginning to end."""
    return train(small_config(scene, tmp_path_factory.mktemp("runs")))


def equal_states(first, second) -> list[str]:
    """Names of what differs."""
    states = [trainer.pipeline.model.state_dict() for trainer in (first, second)]
    assert states[0].keys() == states[1].keys()
    return [name for name, value in states[0].items() if not torch.equal(*(s[name].nan_to_num() for s in states))]


def test_views_are_acquired(finished):
    pools = finished.pipeline.model.pools
    assert (len(pools.active), len(pools.candidates)) == (5, 3)
    assert sorted([*pools.active, *pools.candidates]) == list(range(8))
    record = json.loads((finished.base_dir / "active_views.json").read_text())
    assert record["initial"] == ["r_000.png", "r_001.png", "r_002.png"]
    assert [entry["step"] for entry in record["rounds"]] == list(ACTIVE)
    assert [entry["views"][0]["view"] for entry in record["rounds"]] == pools.active[3:]
    assert all(entry["views"][0]["score"] > 0 for entry in record["rounds"])
    assert len(record["candidates"]) == 3


def test_the_best_candidate_is_acquired(scene, tmp_path):
    config = small_config(scene, tmp_path)
    config.max_num_iterations = ACTIVE[0]
    model = (trainer := train(config)).pipeline.model
    manager = trainer.pipeline.datamanager
    candidates = model.pools.candidates
    scores = score_views(model, manager.train_dataset.cameras[torch.tensor(candidates)], 2)
    assert all(score.rays == (SIDE // 2) ** 2 for score in scores)
    config = small_config(scene, tmp_path)
    config.timestamp, config.load_dir, config.max_num_iterations = "later", trainer.checkpoint_dir, ACTIVE[0] + 1
    pools = train(config).pipeline.model.pools
    best = max(range(len(scores)), key=lambda place: scores[place].total)
    assert pools.active[-1] == candidates[best]
    assert float(pools.scores[pools.active[-1]]) == pytest.approx(scores[best].total, rel=1e-9)


def test_an_epoch_draws_each_ray_of_the_active_views_once(scene, tmp_path):
    """Also after acquisitions: the released code lost half of the rays then."""
    config = small_config(scene, tmp_path)
    config.pipeline.datamanager.train_num_rays_per_batch = SIDE**2
    trainer = train(config)
    manager, pools = trainer.pipeline.datamanager, trainer.pipeline.model.pools
    drawn = torch.cat([manager.next_train(step)[1]["indices"] for step in range(ACTIVE[1], ACTIVE[1] + 5)])
    assert len(drawn) == len(drawn.unique(dim=0)) == 5 * SIDE**2
    assert sorted(drawn[:, 0].unique().tolist()) == sorted(pools.active)
    assert len(manager.sampler.pool) == 5 * SIDE**2


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_resumed_run_equals_the_uninterrupted_one(finished, scene, tmp_path, stop):
    config = small_config(scene, tmp_path)
    config.max_num_iterations = stop
    first = train(config)
    config = small_config(scene, tmp_path)
    config.timestamp, config.load_dir = "later", first.checkpoint_dir
    resumed = train(config)
    assert equal_states(resumed, finished) == []
    records = [json.loads((run.base_dir / "active_views.json").read_text()) for run in (resumed, finished)]
    assert records[0] == records[1]


@pytest.mark.parametrize("choice", ["random", "farthest-point"])
def test_other_choices(scene, tmp_path, choice):
    config = small_config(scene, tmp_path)
    config.pipeline.model.acquisition = choice
    trainer = train(config)
    pools = trainer.pipeline.model.pools
    assert len(pools.active) == 5
    assert bool(pools.scores.isnan().all())
    if choice == "farthest-point":
        places = trainer.pipeline.datamanager.train_dataset.cameras.camera_to_worlds[:, :, 3]
        rest = list(range(3, 8))
        assert pools.active[3] == rest[farthest_views(places[:3], places[rest], 1)[0]]


def test_views_that_came_since_are_trained_on(finished, scene, tmp_path):
    """A wish has been photographed: the scene has one more training image."""
    larger = tmp_path / "larger"
    shutil.copytree(scene, larger)
    content = json.loads((larger / "transforms_train.json").read_text())
    for name in ("images", "train"):
        if (larger / name).is_dir():
            shutil.copy(larger / f"{content['frames'][0]['file_path']}.png", larger / "train" / "r_new.png")
    frame = {**json.loads((larger / "transforms_val.json").read_text())["frames"][0]}
    shutil.copy(larger / f"{frame['file_path']}.png", larger / "train" / "r_new.png")
    content["frames"].insert(2, {**frame, "file_path": "./train/r_new"})
    (larger / "transforms_train.json").write_text(json.dumps(content))
    config = small_config(scene, tmp_path)
    config.max_num_iterations = 3
    first = train(config)
    config = small_config(larger, tmp_path)
    config.timestamp, config.load_dir = "later", first.checkpoint_dir
    trainer = train(config)
    names, pools = trainer.pipeline.datamanager.view_names, trainer.pipeline.model.pools
    active = [names[view] for view in pools.active]
    assert active[:3] == ["r_000.png", "r_001.png", "r_002.png"]
    assert active[4] == "r_new.png"
    assert active[3] == finished.pipeline.datamanager.view_names[finished.pipeline.model.pools.active[3]]
    assert len(active) == 6


def test_a_file_names_the_candidates(scene, tmp_path):
    split = tmp_path / "split"
    shutil.copytree(scene, split)
    content = json.loads((split / "transforms_train.json").read_text())
    frames = content["frames"]
    held = [*frames[2:6], {**frames[6], "file_path": "./train/not_taken_yet"}]
    (split / "transforms_train.json").write_text(json.dumps({**content, "frames": frames[:2]}))
    (split / "transforms_holdout.json").write_text(json.dumps({**content, "frames": held}))
    trainer = make_trainer(small_config(split, tmp_path))
    manager = trainer.pipeline.datamanager
    assert manager.initial() == [0, 1]
    assert manager.view_names == [f"r_00{number}.png" for number in range(6)]
    config = small_config(split, tmp_path)
    config.pipeline.model.choose_k = 3
    with pytest.raises(SceneError, match=r"2 x 3 views are to be acquired .* but there are 4 candidates"):
        train(config)


def test_initial_views(scene, tmp_path):
    config = small_config(scene, tmp_path)
    manager = make_trainer(config).pipeline.datamanager
    settings = manager.config
    manager.config = replace(settings, initial_names=("r_006", "r_001.png"))
    assert manager.initial() == [1, 6]
    manager.config = replace(settings, initial_seed=5)
    drawn = manager.initial()
    assert len(drawn) == 3
    assert drawn == manager.initial() != [0, 1, 2]
    manager.config = replace(settings, initial_names=("r_100",))
    with pytest.raises(SceneError, match=r"names r_100, but the training images are r_000.png to r_007.png"):
        manager.initial()


def test_the_middle_first(scene, tmp_path):
    config = small_config(scene, tmp_path)
    config.pipeline.model.training.precrop_iters = 3
    config.max_num_iterations = 3
    trainer = train(config)
    manager = trainer.pipeline.datamanager
    assert len(manager.sampler.pool) == 4 * (SIDE // 2) ** 2
    places = manager.pixels.positions(manager.sampler.pool)[:, 1:]
    assert (int(places.min()), int(places.max())) == (SIDE // 4, 3 * SIDE // 4 - 1)
    config = small_config(scene, tmp_path)
    config.pipeline.model.training.precrop_iters = 3
    config.timestamp, config.load_dir, config.max_num_iterations = "later", trainer.checkpoint_dir, 4
    assert len(train(config).pipeline.datamanager.sampler.pool) == 4 * SIDE**2


def test_it_learns(scene, tmp_path):
    """All eight views, small networks."""
    config = small_config(scene, tmp_path)
    model = config.pipeline.model
    model.training.iters, model.active_iters = 250, ()
    model.width, model.multires, model.num_coarse_samples, model.num_importance_samples = 32, 4, 16, 16
    config.pipeline.datamanager.initial_views, config.pipeline.datamanager.train_num_rays_per_batch = 8, 128
    measured = measure_split(train(config).pipeline, "train")
    assert measured["psnr"] > 15
    assert measured["spearman"] > 0.5


# Evaluation


@pytest.fixture
def registered(finished, monkeypatch):
    monkeypatch.setitem(all_methods, "activenerf-tiny", finished.config)
    return finished.base_dir / "config.yml"


def test_evaluation_measures_the_uncertainty(finished, registered, tmp_path):
    _, pipeline, _, _ = eval_setup(registered)
    state = pipeline.model.state_dict()
    assert all(
        torch.equal(state[n].nan_to_num(), v.nan_to_num()) for n, v in finished.pipeline.model.state_dict().items()
    )
    ComputePSNR(load_config=registered, output_path=tmp_path / "metrics.json").main()
    results = json.loads((tmp_path / "metrics.json").read_text())["results"]
    assert results["ause"] >= 0
    assert -1 <= results["spearman"] <= 1
    assert results["psnr"] > 5


@torch.no_grad()
def test_the_uncertainty_is_rendered(finished, registered, tmp_path):
    DatasetRender(load_config=registered, output_path=tmp_path, split="test", image_format="png").main()
    folders = {path.name for path in (tmp_path / "test").iterdir()}
    assert folders == {"gt-rgb", "rgb", "rgb_coarse", "uncert", "uncert_std", "accumulation", "depth"}
    model = finished.pipeline.model.eval()
    outputs = model.get_outputs_for_camera(finished.pipeline.datamanager.split_dataset("test").cameras[:1])
    torch.testing.assert_close(outputs["uncert_std"].square(), outputs["uncert"])
    picture = np.asarray(Image.open(sorted((tmp_path / "test" / "rgb").iterdir())[0]))
    np.testing.assert_allclose(picture / 255, outputs["rgb"].clamp(0, 1).numpy(), atol=1.1 / 255)


# Rays


def test_legacy_rays(scene, tmp_path):
    config = small_config(scene, tmp_path)
    config.pipeline.model.legacy_rays = True
    trainer = make_trainer(config)
    manager, model = trainer.pipeline.datamanager, trainer.pipeline.model
    indices = torch.tensor([[2, 5, 7]])
    rays = manager.train_ray_generator(indices)
    camera = manager.train_dataset.cameras[2]
    focal = float(camera.fx)
    local = torch.tensor([(7 - SIDE / 2) / focal, -(5 - SIDE / 2) / focal, -1.0])
    expected = camera.camera_to_worlds[:, :3] @ local
    made = rays.directions[0] * rays.metadata["directions_norm"][0]
    torch.testing.assert_close(made, expected)
    (chunk,) = list(camera_rays(model, manager.train_dataset.cameras[2:3], 1))
    torch.testing.assert_close(chunk.directions[5 * SIDE + 7], rays.directions[0])


@torch.no_grad()
def test_rays_end_where_a_crop_does(finished):
    model = finished.pipeline.model.eval()
    (rays,) = list(camera_rays(model, finished.pipeline.datamanager.train_dataset.cameras[:1], 4))
    everything = model.get_outputs(rays)
    ends = torch.tensor([[1.0, 9.0], [7.0, 9.0], [2.5, 3.5]]).repeat(len(rays), 1)[: len(rays)]
    rays.nears, rays.fars = ends[:, :1], ends[:, 1:]
    cropped = model.get_outputs(rays)
    torch.testing.assert_close(cropped["rgb"][::3], everything["rgb"][::3])
    assert bool((cropped["rgb"][1::3] == model.background).all())  # beyond the scene's far end
    for name in ("accumulation", "uncert"):
        assert float(cropped[name][1::3].abs().max()) == 0
    assert not torch.allclose(cropped["rgb"][2::3], everything["rgb"][2::3])


def test_forward_facing_scenes_in_world_coordinates(forward_facing, tmp_path):
    """Near is 0.9 of the smallest bound, as in the released code."""
    config = small_config(forward_facing, tmp_path, activenerf_llff)
    config.pipeline.datamanager.dataparser.eval_interval = 4
    config.pipeline.datamanager.dataparser.downscale_factor = 2
    config.pipeline.model.use_ndc, config.max_num_iterations = False, 1
    trainer = train(config)
    bounds = trainer.pipeline.datamanager.depth_range
    near, far = trainer.pipeline.model.depth_range.tolist()
    assert near == pytest.approx(0.9 * bounds.near, rel=1e-6)
    assert far == pytest.approx(bounds.far, rel=1e-6)


@pytest.mark.parametrize("size", [(15, 21), (16, 20)])
def test_subsampling_takes_rays_of_the_full_grid(finished, scene, size):
    """Also of odd sizes: the released code counted too few of their rays."""
    model = finished.pipeline.model
    camera = finished.pipeline.datamanager.train_dataset.cameras[:1]
    height, width = size
    camera = replace(camera, height=torch.full_like(camera.height, height), width=torch.full_like(camera.width, width))
    every = torch.cat([rays.directions for rays in camera_rays(model, camera, 1)]).view(height, width, 3)
    some = torch.cat([rays.directions for rays in camera_rays(model, camera, 2)])
    assert torch.equal(some, every[::2, ::2].reshape(-1, 3))


def test_forward_facing_scenes(forward_facing, tmp_path):
    """Normalised device coordinates are those of the whole image, however many rays of a candidate are looked at."""
    config = small_config(forward_facing, tmp_path, activenerf_llff)
    config.pipeline.datamanager.dataparser.eval_interval = 4
    config.pipeline.datamanager.dataparser.downscale_factor = 2
    trainer = train(config)
    model, camera = trainer.pipeline.model, trainer.pipeline.datamanager.train_dataset.cameras[0]
    assert len(model.pools.active) == 5
    ndc = NDC.of_camera(float(camera.fx), float(camera.fx), 21, 15)
    torch.testing.assert_close(model.ndc, torch.tensor([ndc.x_scale, ndc.y_scale]))
    cameras = trainer.pipeline.datamanager.train_dataset.cameras[:1]
    model.eval()
    with torch.no_grad():
        every = torch.cat([model.render(rays).fine.rgb for rays in camera_rays(model, cameras, 1)]).view(15, 21, 3)
        some = torch.cat([model.render(rays).fine.rgb for rays in camera_rays(model, cameras, 2)])
        outputs = model.get_outputs_for_camera(cameras)
    torch.testing.assert_close(some, every[::2, ::2].reshape(-1, 3), atol=1e-5, rtol=1e-4)
    assert bool(outputs["depth"].isfinite().all())
    config.timestamp, config.pipeline.model.near = "other", 1.0
    with pytest.raises(SceneError, match="have no effect with normalised device coordinates"):
        make_trainer(config)


def test_a_view_scores_alike_at_twice_its_size(finished):
    model, cameras = finished.pipeline.model, finished.pipeline.datamanager.train_dataset.cameras[5:6]
    large = replace(
        cameras, **{name: getattr(cameras, name) * 2 for name in ("fx", "fy", "cx", "cy", "width", "height")}
    )
    small, double = (score_views(model, camera, 1)[0] for camera in (cameras, large))
    assert double.rays == 4 * small.rays
    assert double.mean == pytest.approx(small.mean, rel=0.02)
    twice = score_views(model, replace(cameras).reshape((1,)), 1)[0]
    assert twice.total == small.total


# What is refused


def test_what_is_refused(scene, tmp_path):
    for changes, sentence in (
        ({"active_iters": (4, 2)}, "active-iters must ascend from at least 1, not 4 2"),
        ({"active_iters": (2, 6)}, "training ends after 6 steps"),
        ({"choose_k": 0}, "choose-k must be at least 1, not 0"),
        ({"beta_min": -1.0}, "beta-min must not be negative, but -1.0"),
    ):
        config = small_config(scene, tmp_path)
        for name, value in changes.items():
            setattr(config.pipeline.model, name, value)
        with pytest.raises(SceneError, match=sentence):
            make_trainer(config)
    config = small_config(scene, tmp_path)
    config.pipeline.datamanager.initial_views = 7
    with pytest.raises(SceneError, match=r"2 x 1 views are to be acquired .* but there are 1 candidates"):
        train(config)


def test_a_loss_that_is_not_finite_is_named(scene, tmp_path):
    trainer = make_trainer(small_config(scene, tmp_path))
    trainer.pipeline.model.field_fine.uncertainty_linear.bias.data.fill_(float("nan"))
    with pytest.raises(SceneError, match=r"loss of step 0 is not finite \(.*nll_log nan"):
        trainer.train()


def test_published_recipes():
    for method, initial, steps, chosen, iters in (
        (activenerf, 20, (100_000, 200_000, 300_000, 400_000), 4, 500_000),
        (activenerf_i, 4, (40_000, 80_000, 120_000, 160_000), 4, 200_000),
        (activenerf_ii, 2, (40_000, 80_000, 120_000, 160_000), 2, 200_000),
        (activenerf_llff, 5, (100_000, 200_000, 300_000, 400_000), 2, 500_000),
    ):
        model, manager = method.config.pipeline.model, method.config.pipeline.datamanager
        assert (manager.initial_views, model.active_iters, model.choose_k) == (initial, steps, chosen)
        assert model.training.iters == iters
        assert (model.num_coarse_samples, model.num_importance_samples, model.depth, model.width) == (64, 128, 8, 256)
        assert manager.train_num_rays_per_batch == 1024
    assert activenerf_llff.config.optimizers["fields"]["scheduler"].decay_steps == 250_000


# The authors' files


def test_checkpoints_there_and_back(finished, tmp_path, run_tool):
    (path,) = finished.checkpoint_dir.iterdir()
    run = read_parts(load_checkpoint_file(path))
    assert run.step == ITERS
    assert (list(run.train), list(run.holdout)) == (finished.pipeline.model.pools.active, [*run.holdout])
    assert run_tool("convert_checkpoint", "activenerf", path, tmp_path / "back.tar", "--to", "authors").code == 0
    released = load_checkpoint_file(tmp_path / "back.tar")
    assert released.keys() == {
        "global_step",
        "i_train",
        "i_holdout",
        "network_fn_state_dict",
        "network_fine_state_dict",
        "optimizer_state_dict",
        "beta_min",  # more than their loader reads
    }
    numbers = [parameter for part in (run.coarse, run.fine) for parameter in part.parameters()]
    torch.optim.Adam(numbers, lr=1e-3).load_state_dict(released["optimizer_state_dict"])  # as their loader does
    torch.save(released, tmp_path / "000006.tar")
    conversion = to_perception(load_checkpoint_file(tmp_path / "000006.tar"))
    assert conversion.unmatched == ["optimizer_state_dict"]
    assert to_perception(released | {"network": {}}).unmatched == ["optimizer_state_dict", "network"]
    assert run_tool("convert_checkpoint", "activenerf", tmp_path / "000006.tar", tmp_path / "ours.pt").code == 0
    parts = read_parts(load_checkpoint_file(tmp_path / "ours.pt"))
    for name in ("coarse", "fine"):
        state = getattr(parts, name).state_dict()
        field = getattr(finished.pipeline.model, f"field_{name}").state_dict()
        assert all(torch.equal(state[key], field[key]) for key in field)
    assert ours(parts)["meta"] == conversion.checkpoint["meta"]
    assert authors(parts)["i_train"].tolist() == released["i_train"].tolist()


def test_a_run_starts_from_a_file(finished, scene, tmp_path):
    (path,) = finished.checkpoint_dir.iterdir()
    torch.save(to_authors(load_checkpoint_file(path)).checkpoint, tmp_path / "authors.tar")
    config = small_config(scene, tmp_path)
    config.pipeline.model.weights, config.max_num_iterations = tmp_path / "authors.tar", 1
    config.optimizers["fields"]["optimizer"].lr = 1e-12
    field = train(config).pipeline.model.field_fine
    torch.testing.assert_close(field.rgb_linear.weight, finished.pipeline.model.field_fine.rgb_linear.weight)
    config.pipeline.model.width = 8
    config.timestamp = "other"
    with pytest.raises(SceneError, match="holds networks of"):
        train(config)
