"""Stages: when their hooks are called, and a stage with a training step of its own, through resume and all."""

from dataclasses import dataclass, field

import pytest
import torch
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import Trainer
from torch.nn import Parameter

from perception.datasets.synthetic import radiance
from perception.studio.optimizers import MaskedAdamConfig, PerStepDecayConfig, follow_decay
from perception.studio.stages import Stage, StageSchedule
from perception.studio.trainer import StudioTrainer
from tests.studio.toy import CoarseStage, ToyModel, ToyModelConfig, ToySettings, make_trainer, toy_config, train

pytestmark = pytest.mark.xdist_group("nerfstudio")
SWITCH, STEPS = 4, 12


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "scene"
    radiance.write(out, radiance.Params(num_train=4, num_val=1, num_test=1, size=16, num_objects=1))
    return out


class NotingStage(Stage[ToyModel, ToySettings]):
    """Writes down what is called."""

    notes: list

    def _note(self, *what):
        self.notes.append((self.name, *what))

    def start(self, run):
        self._note("start", run.step)
        run.restart()

    def take_up(self, run):
        self._note("take up", run.step)

    def before_step(self, run, local):
        self._note("before", local)

    def after_backward(self, run, local):
        assert all(parameter.grad is not None for parameter in (run.model.grid, run.model.scale))
        self._note("gradients", local)

    def after_step(self, run, local):
        self._note("after", local)

    def end(self, run):
        self._note("end", run.step)

    def finish(self, run):
        self._note("finish", run.step)


@dataclass
class NotingConfig(ToyModelConfig):
    """Two stages of two steps."""

    notes: list = field(default_factory=list)

    def stages(self):
        """First and second."""
        stages = [NotingStage("first", ToySettings(2)), NotingStage("second", ToySettings(2))]
        for stage in stages:
            stage.notes = self.notes
        return stages


def noted(scene, out, stop=None, load=None, timestamp="now"):
    config = toy_config(scene, out)
    config.pipeline.model = NotingConfig(compute_lpips=False)
    config.load_dir, config.timestamp = load, timestamp
    config.max_num_iterations = stop or 10**6
    trainer = train(config)
    return config.pipeline.model.notes, trainer


def test_hooks_are_called_in_their_order(scene, tmp_path):
    def step(name, local):
        return [(name, what, local) for what in ("before", "gradients", "after")]

    whole, _ = noted(scene, tmp_path / "whole")
    first = [("first", "start", 0), *step("first", 1), *step("first", 2), ("first", "end", 1)]
    second = [("second", "start", 2), *step("second", 1), *step("second", 2), ("second", "end", 3)]
    assert whole == [*first, *second, ("second", "finish", 3)]
    begun, trainer = noted(scene, tmp_path / "stopped", stop=1)
    assert begun == first[:4]
    resumed, _ = noted(scene, tmp_path / "resumed", load=trainer.checkpoint_dir)
    rest = [*second, ("second", "finish", 3)]
    assert resumed == [("first", "take up", 1), *step("first", 2), ("first", "end", 1), *rest]
    _, trainer = noted(scene, tmp_path / "between", stop=2)
    assert noted(scene, tmp_path / "after", load=trainer.checkpoint_dir)[0] == rest


class AlternatingStage(Stage[ToyModel, ToySettings]):
    """As adversarial training goes: the grid with a frozen scale, then the scale by two backward passes."""

    def start(self, run):
        run.restart("scale")
        run.follow_decay(25, "grid")

    def train_iteration(self, run):
        model = run.model
        rays, batch = run.manager.next_train(run.step)
        target = model.target(batch)
        run.zero_grad()
        model.scale.requires_grad_(False)
        with run.autocast():
            losses = {"rgb_loss": (model(rays)["rgb"] - target).square().mean()}
        run.backward(losses["rgb_loss"])
        assert model.scale.grad is None
        run.optimizer_step("grid")
        model.scale.requires_grad_(True)
        run.zero_grad("scale")
        for part in (0.3, 0.7):
            run.backward(part * (model(rays)["rgb"].mean() - target.mean()).square())
        run.optimizer_step("scale")
        return run.end_iteration(losses["rgb_loss"], losses, {"scale": model.scale.detach().mean()})


@dataclass
class AlternatingConfig(ToyModelConfig):
    """A plain stage, then one with its own step."""

    coarse: ToySettings = field(default_factory=lambda: ToySettings(SWITCH))
    joint: ToySettings = field(default_factory=lambda: ToySettings(STEPS - SWITCH))

    def stages(self):
        """Two."""
        return [CoarseStage("coarse", self.coarse), AlternatingStage("joint", self.joint)]


def alternating(scene, out, stop=None, load=None):
    config = toy_config(scene, out)
    config.pipeline.model = AlternatingConfig(compute_lpips=False)
    config.optimizers["scale"]["scheduler"] = PerStepDecayConfig(decay_steps=10)
    config.steps_per_eval_all_images = 10**6
    config.load_dir, config.max_num_iterations = load, stop or 10**6
    return train(config)


def everything(trainer) -> list:
    state = list(trainer.pipeline.model.state_dict().values())
    for group in trainer.optimizers.optimizers.values():
        state += [torch.as_tensor(value) for entry in group.state.values() for value in entry.values()]
        state.append(torch.tensor(group.param_groups[0]["lr"], dtype=torch.float64))
    return state


@pytest.mark.parametrize("stop", [SWITCH - 1, SWITCH, SWITCH + 1, SWITCH + 5])
def test_a_step_of_its_own_resumes_exactly(scene, tmp_path, stop):
    whole = alternating(scene, tmp_path / "whole")
    part = alternating(scene, tmp_path / "part", stop)
    resumed = alternating(scene, tmp_path / "resumed", load=part.checkpoint_dir)
    first, second = everything(whole), everything(resumed)
    assert len(first) == len(second)
    assert all(torch.equal(one, two) for one, two in zip(first, second))


def test_each_optimiser_steps_once_and_rates_go_where_the_stage_says(scene, tmp_path):
    trainer = alternating(scene, tmp_path)
    model, made = trainer.pipeline.model, trainer.optimizers
    assert made.optimizers["grid"].state[model.grid]["step"] == STEPS  # went on
    assert made.optimizers["scale"].state[model.scale]["step"] == STEPS - SWITCH  # began anew
    grid, scale = (made.optimizers[group].param_groups[0]["lr"] for group in ("grid", "scale"))
    assert grid == pytest.approx(0.1 * 0.1 ** (SWITCH / 50) * 0.1 ** ((STEPS - SWITCH) / 25), rel=1e-9)
    assert scale == pytest.approx(0.01 * 0.1 ** ((STEPS - SWITCH) / 10), rel=1e-9)


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": {"grid": 3}}, {"log_gradients": True}])
def test_the_plain_step_is_nerfstudios(scene, tmp_path, monkeypatch, settings):
    def trained(out):
        config = toy_config(scene, out)
        config.max_num_iterations = 7
        for name, value in settings.items():
            setattr(config, name, value)
        trainer = make_trainer(config)
        logged = []
        iterate = trainer.train_iteration
        trainer.train_iteration = lambda step: logged.append(iterate(step)) or logged[-1]
        trainer.train()
        return everything(trainer), logged

    state, logged = trained(tmp_path / "ours")
    monkeypatch.setattr(StudioTrainer, "train_iteration", Trainer.train_iteration)
    expected, theirs = trained(tmp_path / "theirs")
    assert all(torch.equal(one, two) for one, two in zip(state, expected))
    for (loss, losses, metrics), (other, others, more) in zip(logged, theirs):
        assert torch.equal(loss, other)
        assert losses.keys() == others.keys()
        assert metrics.keys() == more.keys()
        assert all(float(value) == pytest.approx(float(more[name]), rel=1e-6) for name, value in metrics.items())


def test_a_rate_that_goes_another_way_survives_a_checkpoint():
    def optimizers(parameter, scheduler):
        groups = {"grid": {"optimizer": MaskedAdamConfig(lr=0.1), "scheduler": scheduler}}
        return Optimizers(groups, {"grid": [parameter]})

    def step(made, times):
        for _ in range(times):
            made.optimizers["grid"].step()
            made.scheduler_step("grid")
        return made.optimizers["grid"].param_groups[0]["lr"]

    plan = PerStepDecayConfig(decay_steps=100)
    made = optimizers(Parameter(torch.zeros(2)), plan)
    step(made, 30)
    follow_decay(made, "grid", 1000)
    expected = 0.1 * 0.1 ** (30 / 100) * 0.1 ** (20 / 1000)
    assert step(made, 20) == pytest.approx(expected, rel=1e-9)
    other = optimizers(Parameter(torch.zeros(2)), plan)
    other.load_optimizers({"grid": made.optimizers["grid"].state_dict()})
    other.load_schedulers({"grid": made.schedulers["grid"].state_dict()})
    assert step(other, 50) == step(made, 50) == pytest.approx(expected * 0.1 ** (50 / 1000), rel=1e-9)
    with pytest.raises(TypeError, match="must be a PerStepDecayConfig"):
        follow_decay(optimizers(Parameter(torch.zeros(2)), None), "grid", 10)


def test_stages_that_share_their_settings():
    schedule = StageSchedule([("base", 3), ("pilot.1", 2), ("full.1", 2), ("pilot.2", 2)])
    assert [schedule.at(step).name for step in (2, 3, 6, 8, 20)] == ["base", "pilot.1", "full.1", "pilot.2", "pilot.2"]
