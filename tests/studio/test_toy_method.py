"""A toy method through nerfstudio's trainer, evaluation and rendering: stages, exact resume, grown grids, errors."""

import json

import numpy as np
import pytest
import torch
from nerfstudio.configs import method_configs
from nerfstudio.scripts import train as ns_train
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.scripts.render import DatasetRender
from nerfstudio.utils.eval_utils import eval_setup
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from perception.datasets.synthetic import radiance
from perception.engine.errors import UserError
from perception.studio.errors import SceneError
from perception.studio.evaluation import measure_split
from tests.studio.toy import FACTOR, SIDES, STEPS, ToyModel, make_trainer, toy_config, train

pytestmark = pytest.mark.xdist_group("nerfstudio")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "scene"
    radiance.write(out, radiance.Params(num_train=6, num_val=2, num_test=2, size=24, num_objects=2))
    return out


@pytest.fixture(scope="module")
def run_and_events(scene, tmp_path_factory):
    trainer = train(toy_config(scene, tmp_path_factory.mktemp("runs")))
    events = EventAccumulator(str(trainer.base_dir))
    events.Reload()  # now, because nerfstudio writes the events of later runs of a process here, too
    return trainer, events


@pytest.fixture(scope="module")
def finished(run_and_events):
    """A run from beginning to end."""
    return run_and_events[0]


@pytest.fixture(scope="module")
def events(run_and_events):
    """What it wrote for tensorboard."""
    return run_and_events[1]


@pytest.fixture
def registered(finished, monkeypatch):
    """nerfstudio's evaluation looks methods up by name."""
    monkeypatch.setitem(method_configs.all_methods, "toy", finished.config)
    return finished.base_dir / "config.yml"


def resume(first, scene, out):
    config = toy_config(scene, out)
    config.timestamp, config.load_dir = "later", first.checkpoint_dir
    return train(config)


def assert_equal_tensors(first: dict, second: dict):
    assert first.keys() == second.keys()
    assert not [name for name in first if not torch.equal(first[name], second[name])]


def test_a_run_leaves_what_it_should(finished, events):
    assert finished.step == STEPS - 1
    assert (finished.base_dir / "config.yml").is_file()
    assert [path.name for path in finished.checkpoint_dir.iterdir()] == [f"step-{STEPS - 1:09d}.ckpt"]
    assert len(list(finished.base_dir.glob("events*"))) == 1
    losses = [event.value for event in events.Scalars("Train Loss")]
    assert losses[-1] < 0.7 * losses[0]


def test_each_stage_begins_once(finished):
    assert finished.pipeline.model.changes == [(8, "fine"), (15, "polish")]


def test_optimisers_follow_the_grown_grid(finished):
    model, made = finished.pipeline.model, finished.optimizers
    assert model.grid.shape == (1, 4, *[SIDES["fine"]] * 3)
    for group, parameters in model.get_param_groups().items():
        held = made.optimizers[group].param_groups[0]["params"]
        assert [id(parameter) for parameter in held] == [id(parameter) for parameter in parameters]
        assert made.optimizers[group].state.keys() == set(parameters)
        for parameter in parameters:
            assert made.optimizers[group].state[parameter]["exp_avg"].shape == parameter.shape
    # The grid's moments began with the second stage, the other group's with the run.
    assert made.optimizers["grid"].state[model.grid]["step"] == STEPS - 8
    assert made.optimizers["scale"].state[model.scale]["step"] == STEPS
    rate = made.optimizers["grid"].param_groups[0]["lr"]
    assert rate == pytest.approx(0.1 * FACTOR * 0.1 ** ((STEPS - 8) / 50), rel=1e-9)


@pytest.mark.parametrize(
    ("stop", "changes"),
    [
        (4, [(8, "fine"), (15, "polish")]),
        (8, [(8, "fine"), (15, "polish")]),  # the next step is the first of a stage
        (9, [(15, "polish")]),
        (15, [(15, "polish")]),
        (17, []),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(finished, scene, tmp_path, stop, changes):
    config = toy_config(scene, tmp_path)
    config.max_num_iterations = stop
    first = train(config)
    assert first.step == stop - 1
    resumed = resume(first, scene, tmp_path)
    assert resumed._start_step == stop
    assert resumed.step == STEPS - 1
    assert resumed.pipeline.model.changes == changes
    assert_equal_tensors(resumed.pipeline.model.state_dict(), finished.pipeline.model.state_dict())
    for group, optimizer in resumed.optimizers.optimizers.items():
        expected = finished.optimizers.optimizers[group]
        assert optimizer.param_groups[0]["lr"] == expected.param_groups[0]["lr"]
        for (_, state), (_, other) in zip(optimizer.state.items(), expected.state.items()):
            assert_equal_tensors(state, other)


def test_grids_are_resized_around_the_parameters_that_optimisers_hold(finished, scene, tmp_path):
    config = toy_config(scene, tmp_path)
    config.max_num_iterations = 12
    config.load_dir = train(config).checkpoint_dir
    config.timestamp, config.max_num_iterations = "later", STEPS
    trainer = make_trainer(config)
    model = trainer.pipeline.model
    held = trainer.optimizers.optimizers["grid"].param_groups[0]["params"]
    assert held[0] is model.grid
    assert model.grid.shape[-1] == SIDES["fine"]
    before = model.grid.detach().clone()
    trainer.train()
    assert held[0] is model.grid
    assert not torch.equal(model.grid, before)


def test_evaluation_equals_that_in_the_run(finished, events, registered):
    """`eval_setup` loads the very tensors, and measures what the run measured on the same views."""
    _, pipeline, path, step = eval_setup(registered, test_mode="val")
    assert (path.name, step) == (f"step-{STEPS - 1:09d}.ckpt", STEPS - 1)
    assert_equal_tensors(pipeline.model.state_dict(), finished.pipeline.model.state_dict())
    (in_the_run,) = events.Scalars("Eval Images Metrics Dict (all images)/psnr")
    assert in_the_run.step == STEPS - 1
    measured = pipeline.get_average_eval_image_metrics()
    assert measured["psnr"] == pytest.approx(in_the_run.value, rel=1e-6)
    assert measure_split(pipeline, "val")["psnr"] == pytest.approx(measured["psnr"], rel=1e-7)


def test_ns_eval_measures_the_test_views(finished, registered, tmp_path):
    ComputePSNR(load_config=registered, output_path=tmp_path / "metrics.json").main()
    results = json.loads((tmp_path / "metrics.json").read_text())["results"]
    expected = measure_split(finished.pipeline, "test")
    assert results["psnr"] == pytest.approx(expected["psnr"], rel=1e-6)
    assert results["ssim"] == pytest.approx(expected["ssim"], rel=1e-5)
    assert "lpips" not in results


@torch.no_grad()
def test_ns_render_writes_what_the_model_shows(finished, registered, tmp_path):
    DatasetRender(load_config=registered, output_path=tmp_path, split="train+test", image_format="png").main()
    assert {path.name for path in (tmp_path / "test").iterdir()} == {"gt-rgb", "rgb", "accumulation", "depth"}
    assert len(list((tmp_path / "train" / "rgb").iterdir())) == 6
    model = finished.pipeline.model.eval()
    views = finished.pipeline.datamanager.split_dataset("test")
    outputs = model.get_outputs_for_camera(views.cameras[1:2])
    for name, expected in (("rgb", outputs["rgb"]), ("gt-rgb", views[1]["image"])):
        picture = np.asarray(Image.open(tmp_path / "test" / name / "r_001.png"))
        np.testing.assert_allclose(picture / 255, expected.clamp(0, 1).numpy(), atol=1.1 / 255)


def test_a_checkpoint_of_something_else_is_refused(finished, scene, tmp_path):
    (checkpoint,) = finished.checkpoint_dir.iterdir()
    content = torch.load(checkpoint, weights_only=True)
    content["pipeline"]["_model.colour"] = content["pipeline"].pop("_model.scale")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save(content, folder / checkpoint.name)
    config = toy_config(scene, tmp_path)
    config.load_dir = folder
    with pytest.raises(SceneError, match=r"1 names are missing \(scale\), 1 are left over \(colour\)"):
        make_trainer(config)


def test_errors_leave_nerfstudio_as_one_sentence(scene, tmp_path, monkeypatch):
    """From the set-up of a run, and from the middle of it."""
    config = toy_config(tmp_path / "nothing", tmp_path)
    with pytest.raises(SystemExit) as stopped:
        ns_train.main(config)
    assert stopped.value.code == f"error: there is no scene at {tmp_path / 'nothing'}: pass its folder with --data"

    def complain(*_):
        raise UserError("the sun has set")

    monkeypatch.setattr(ToyModel, "get_loss_dict", complain)
    with pytest.raises(SystemExit) as stopped:
        ns_train.main(toy_config(scene, tmp_path))
    assert stopped.value.code == "error: the sun has set"
