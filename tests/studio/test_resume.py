"""What a checkpoint knows of its run, and what is said when another run goes on from it."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch

from perception.studio.errors import SceneError
from perception.studio.resume import check_resumable, check_stage, scene_difference
from perception.studio.stages import StageSchedule
from projects.vqrf.model import VqrfModelConfig

pytestmark = pytest.mark.xdist_group("nerfstudio")
CHECKPOINT = Path("models/step-000000109.ckpt")
MODEL = VqrfModelConfig()


def scene(count: int = 5) -> dict:
    generator = torch.Generator().manual_seed(0)
    return {
        "names": [f"r_{number}.png" for number in range(count)],
        "poses": torch.randn(count, 3, 4, generator=generator),
        "intrinsics": torch.tensor([20.0, 20, 12, 12, 24, 24]).repeat(count, 1),
        "checksums": torch.arange(count),
        "background": torch.ones(3),
        "box": torch.tensor([[-1.5] * 3, [1.5] * 3]),
        "depths": torch.tensor([2.0, 6.0]),
    }


def record(**settings) -> dict:
    return {
        "method": "vqrf",
        "plan": [["coarse", 60], ["fine", 90], ["compression", 300]],
        "settings": {f"pipeline.model.{name}": value for name, value in settings.items()},
        "parser": None,
        "scene": scene(),
    }


def resumed(before: dict, now: dict, step: int = 109) -> str:
    saved, own = record(**before), record(**now)
    for made, settings in ((saved, before), (own, now)):
        made["plan"] = [[name, settings.get(f"{name}.iters", steps)] for name, steps in made["plan"]]
    return check_resumable(saved, own, MODEL, step, CHECKPOINT)


def test_the_same_run_goes_on_without_a_word():
    assert resumed({"near": 2.0}, {"near": 2.0}) == ""


def test_options_of_another_version_do_not_count():
    assert resumed({"removed": 1}, {"added": 2}) == ""


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"coarse.iters": 60, "fine.iters": 90}, {"coarse.iters": 250, "fine.iters": 600}),
        ({"coarse.iters": 60}, {"coarse.iters": 50}),
        ({"fine.iters": 90}, {"fine.iters": 40}),
    ],
)
def test_stages_that_begin_elsewhere_are_said(before, now):
    with pytest.raises(
        SceneError, match=r"is of stage fine, which began at step 60.*its step 109 is in stage"
    ) as error:
        resumed(before, now)
    for name, steps in before.items():
        assert f"--pipeline.model.{name} {steps}" in str(error.value)


def test_a_stage_may_end_at_another_step():
    sentence = resumed({"compression.iters": 300, "fine.iters": 90}, {"compression.iters": 500, "fine.iters": 95})
    assert "pipeline.model.compression.iters 300 there, 500 here" in sentence
    assert "pipeline.model.fine.iters 90 there, 95 here" in sentence


@pytest.mark.parametrize("name", ["near", "fine.alpha_init", "coarse.alpha_init", "compression.codebook_size"])
def test_settings_that_trained_it_must_not_differ(name):
    option = name.replace("_", "-")
    with pytest.raises(SceneError, match=f"{name} 1.0 there, 2.0 here; repeat --pipeline.model.{option} 1.0, or start"):
        resumed({name: 1.0}, {name: 2.0})


def test_settings_of_a_stage_to_come_may_differ_but_not_its_sizes():
    assert "lr_factor 5.0 there, 1.0 here" in resumed({"compression.lr_factor": 5.0}, {"compression.lr_factor": 1.0})
    with pytest.raises(SceneError, match="lr_factor"):
        resumed({"compression.lr_factor": 5.0}, {"compression.lr_factor": 1.0}, step=150)
    with pytest.raises(SceneError, match="num_voxels 8 there, 9 here"):
        resumed({"fine.num_voxels": 8}, {"fine.num_voxels": 9}, step=3)


def test_settings_of_the_evaluation_may_differ():
    assert "report_split test there, none here" in resumed({"report_split": "test"}, {"report_split": "none"})


def test_many_differences_are_counted():
    before, now = ({f"coarse.part_{number}": value for number in range(7)} for value in (1, 2))
    with pytest.raises(SceneError, match="and 3 more"):
        resumed(before, now)


def test_another_method_is_said():
    saved, own = record(), record()
    own["method"] = "nerf-4k"
    with pytest.raises(SceneError, match="is of the method vqrf, not of nerf-4k"):
        check_resumable(saved, own, MODEL, 109, CHECKPOINT)


def test_scenes_are_told_apart():
    saved = scene()
    assert scene_difference(saved, deepcopy(saved)) is None
    assert scene_difference(saved, scene(4)) == "5 training images there, 4 here"
    other = deepcopy(saved)
    other["names"][2] = "s_2.png"
    assert scene_difference(saved, other) == "training image r_2.png there, s_2.png in its place here"
    other = deepcopy(saved)
    other["poses"][3:, 0, 3] += 0.1
    assert scene_difference(saved, other) == "2 of 5 training images have other poses, r_3.png first"
    other["poses"] = saved["poses"] + 1e-6 * torch.randn(5, 3, 4)
    assert scene_difference(saved, other) is None  # a parser's arithmetic on another machine
    other["intrinsics"][1, 0] = 21
    assert "other focal length, centre or size, r_1.png first" in scene_difference(saved, other)
    other = deepcopy(saved)
    other["checksums"][4] = 0
    assert scene_difference(saved, other) == "1 of 5 training images have other pixels, r_4.png first"
    for key, sentence in {
        "background": "background 1 1 1 there, 0 0 0 here",
        "box": "scene box -1.5 -1.5 -1.5 1.5 1.5 1.5 there, 0 0 0 0 0 0 here",
        "depths": "near and far 2 6 there, 0 0 here",
    }.items():
        assert scene_difference(saved, {**saved, key: torch.zeros_like(saved[key])}) == sentence
        assert scene_difference({name: saved[name] for name in saved if name != key}, saved) is None
    own = record()
    own["scene"] = other
    with pytest.raises(SceneError, match="trained on another scene, or another reading of it: 1 of 5"):
        check_resumable(record(), own, MODEL, 109, CHECKPOINT)


def test_a_checkpoint_without_a_record_still_has_its_stage():
    schedule = StageSchedule([("coarse", 250), ("fine", 600)])
    check_stage(0, schedule, 109, CHECKPOINT)
    with pytest.raises(SceneError, match=r"is of stage fine, but its step 109 is in stage coarse .*repeat the options"):
        check_stage(1, schedule, 109, CHECKPOINT)
