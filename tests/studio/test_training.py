"""Stages, optimisers, errors and metrics that the methods share."""

import subprocess
import sys

import pytest
import torch
from nerfstudio.engine.optimizers import Optimizers
from torch.nn import Parameter

from perception.engine.errors import UserError
from perception.engine.memory import keep_freed_memory
from perception.studio import model as studio_model
from perception.studio.errors import SceneError, one_sentence
from perception.studio.optimizers import (
    MaskedAdamConfig,
    PerStepDecayConfig,
    replace_parameters,
    restart_schedule,
    scale_learning_rate,
)
from perception.studio.stages import StageSchedule

pytestmark = pytest.mark.xdist_group("nerfstudio")


def optimizers(parameter: Parameter, decay_steps: int = 100) -> Optimizers:
    groups = {"grid": {"optimizer": MaskedAdamConfig(lr=0.1), "scheduler": PerStepDecayConfig(decay_steps=decay_steps)}}
    return Optimizers(groups, {"grid": [parameter]})


def step(made: Optimizers, times: int = 1) -> float:
    for _ in range(times):
        for parameter in made.parameters["grid"]:
            parameter.grad = torch.ones_like(parameter)
        made.optimizer_step("grid")
        made.scheduler_step("grid")
    return made.optimizers["grid"].param_groups[0]["lr"]


def test_stages_follow_each_other():
    schedule = StageSchedule([("coarse", 3), ("fine", 2), ("last", 1)])
    assert [schedule.at(number).name for number in range(8)] == ["coarse"] * 3 + ["fine"] * 2 + ["last"] * 3
    assert (schedule.total_steps, str(schedule)) == (6, "coarse 3, fine 2, last 1")
    assert schedule.at(4).local(4) == 2
    with pytest.raises(ValueError, match="at least 1 step"):
        StageSchedule([("coarse", 0)])


def test_rate_falls_without_end():
    made = optimizers(Parameter(torch.zeros(2)))
    assert step(made, 100) == pytest.approx(0.01)
    assert step(made, 100) == pytest.approx(0.001)


def test_replacing_parameters_starts_afresh():
    old, new = Parameter(torch.zeros(2)), Parameter(torch.zeros(5))
    made = optimizers(old)
    step(made, 10)
    replace_parameters(made, "grid", [new])
    assert made.optimizers["grid"].param_groups[0]["params"] == [new]
    assert step(made) == pytest.approx(0.1 * 0.1 ** (1 / 100))
    assert made.optimizers["grid"].state.keys() == {new}
    assert not torch.equal(new, torch.zeros(5))
    restart_schedule(made, "grid")
    assert made.optimizers["grid"].param_groups[0]["lr"] == 0.1
    assert made.optimizers["grid"].state.keys() == {new}


def test_scaled_rates_survive_a_checkpoint():
    parameter = Parameter(torch.zeros(2))
    made = optimizers(parameter)
    step(made, 7)
    scale_learning_rate(made, "grid", 5)
    expected = 5 * 0.1 * 0.1 ** (8 / 100)
    saved = made.optimizers["grid"].state_dict(), made.schedulers["grid"].state_dict()
    assert step(made) == pytest.approx(expected)
    other = optimizers(Parameter(torch.zeros(2)))
    other.load_optimizers({"grid": saved[0]})
    other.load_schedulers({"grid": saved[1]})
    assert other.optimizers["grid"].param_groups[0]["lr"] == pytest.approx(5 * 0.1 * 0.1 ** (7 / 100))
    assert step(other) == pytest.approx(expected)


def test_errors_end_a_program_with_one_sentence():
    program = (
        "from perception.engine.errors import UserError\n"
        "from perception.studio.errors import one_sentence\n"
        "with one_sentence():\n    raise UserError('the scene is empty')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: the scene is empty\n")
    with pytest.raises(SceneError, match="once"), one_sentence():
        raise SceneError("said once")
    assert issubclass(SceneError, UserError)


def test_lpips_is_left_out_without_weights(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert studio_model._load_lpips(None) == []
    assert "LPIPS is left out" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SceneError, match="no file"):
        studio_model._load_lpips(tmp_path / "weights.pth")
    cached = tmp_path / "checkpoints" / studio_model.ALEXNET_FILE
    cached.parent.mkdir()
    for content in (b"cut", b""):
        cached.write_bytes(content)
        assert studio_model._load_lpips(None) == []
        assert "does not hold torchvision's AlexNet weights" in " ".join(capsys.readouterr().out.split())
        with pytest.raises(SceneError, match="does not hold torchvision's AlexNet weights"):
            studio_model._load_lpips(cached)


def test_lpips_uses_the_weights_on_disk(tmp_path):
    from torchvision.models import alexnet

    weights = alexnet(weights=None).state_dict()
    torch.save(weights, tmp_path / "alexnet.pth")
    (metric,) = studio_model._load_lpips(tmp_path / "alexnet.pth")
    first = metric.net.net.state_dict()
    assert all(torch.equal(value, weights[f"features.{name.split('.', 1)[1]}"]) for name, value in first.items())
    images = torch.rand(2, 1, 3, 64, 64)
    assert float(metric(images[0], images[0])) == pytest.approx(0, abs=1e-6)
    assert float(metric(images[0], images[1])) > 1e-4


def test_freed_memory_is_kept():
    program = (
        "import resource, torch\n"
        "from perception.engine.memory import keep_freed_memory\n"
        "assert keep_freed_memory()\n"
        "def work():\n    return (torch.ones(4_000_000) * 2).sum()\n"
        "for _ in range(5): work()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20): work()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000  # mapping 32 MB anew each time would fault 160 000 times


def test_keeping_memory_says_whether_it_worked(monkeypatch):
    import ctypes

    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False
