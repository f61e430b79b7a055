"""`--cfg-options`: words that are no settings, and settings that nothing reads."""

import argparse

import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from torch import nn

from perception.engine.config import load_config
from perception.engine.errors import UserError
from perception.engine.overrides import KeyValues, check_overrides, checked_arguments
from tests.conftest import REPOSITORY

DEMO = str(REPOSITORY / "configs" / "demo" / "rank_detr.py")


class Base:
    def __init__(self, depth=1):
        self.depth = depth


class Open(Base):
    """Hands on what it does not know."""

    def __init__(self, size=1, **more):
        more.pop("odd", None)
        super().__init__(**more)


def config():
    return Config(
        dict(
            model=dict(type=nn.Linear, in_features=2, out_features=3, part=dict(type=Open, size=2)),
            test_cfg=dict(max_per_img=100, score_thr=0.1),
            train_dataloader=dict(batch_size=2, dataset=dict(type=Open)),
            default_hooks=dict(checkpoint=dict(type=CheckpointHook, interval=1)),
            val_cfg=None,
            epochs=12,
            val_evaluator=[dict(type=nn.Dropout, p=0.5), dict(type="CocoMetric", metric="bbox")],
        )
    )


def said(*keys):
    lines = []
    check_overrides(config(), dict.fromkeys(keys, 1), lines.append)
    return lines


@pytest.mark.parametrize(
    "key",
    [
        *(
            "model.in_features",
            "model.bias",
            "val_evaluator.0.p",
            "val_evaluator.0.inplace",
            "val_evaluator.1.metric",
            "load_from",
        ),
        *("load_from", "resume", "randomness.seed", "folder_kind.type", "train_dataloader.batch_size"),
        *("train_dataloader.num_workers", "train_dataloader.sampler.shuffle", "train_dataloader.dataset.type"),
        *("default_hooks.checkpoint.max_keep_ckpts", "default_hooks.checkpoint.priority", "model.part.depth"),
        *("optim_wrapper.optimizer.lr", "train_cfg.max_iters", "find_unused_parameters"),
    ],
)
def test_what_something_reads_is_taken_silently(key):
    assert said(key) == []


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("modle.in_features", "--cfg-options modle.in_features: the config has no modle; model?"),
        ("batch_size", "the config has no batch_size"),
        ("model.in_featurs", "--cfg-options model.in_featurs: Linear takes no in_featurs; in_features?"),
        ("val_evaluator.0.probability", "Dropout takes no probability"),
        ("train_dataloader.batchsize", "a data loader takes no batchsize; batch_size?"),
    ],
)
def test_what_nobody_reads_is_refused(key, sentence):
    with pytest.raises(UserError) as caught:
        said(key)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("epochs", "changes a variable of the config, after its settings have been made of it"),
        ("test_cfg.max_per_imgs", "adds max_per_imgs to test_cfg, which had no such setting; max_per_img?"),
        ("val_evaluator.1.classwise", "adds classwise to val_evaluator.1, which had no such setting"),
        ("model.part.odd", "adds odd to model.part, which had no such setting"),
        ("default_hooks.checkpont.interval", "adds checkpont to default_hooks, which had no such setting; checkpoint?"),
    ],
)
def test_what_somebody_may_read_is_said(key, line):
    (found,) = said(key)
    assert found == f"warning: --cfg-options {key} {line}"


@pytest.mark.parametrize("value", [3, "three", True])
def test_a_group_of_settings_is_no_value(value):
    with pytest.raises(UserError, match=r"test_cfg is a group of settings; name one, such as test_cfg\.max_per_img$"):
        check_overrides(config(), {"test_cfg": value})
    for fine in (None, dict(max_per_img=3), []):
        check_overrides(config(), {"test_cfg": fine})


def test_the_merge_speaks_of_values_that_are_no_groups():
    assert said("val_cfg.x", "val_evaluator.7.p") == []


def test_configs_are_loaded_with_settings_that_exist_only(capsys, monkeypatch):
    assert load_config(DEMO, {"train_dataloader.batch_size": 7}).train_dataloader.batch_size == 7
    for key in ("modle.x", "model.num_queris", "train_cfg.max_itres", "optim_wrapper.optimizer.lrr"):
        with pytest.raises(UserError, match=f"^--cfg-options {key}: .* no "):
            load_config(DEMO, {key: 1})
    assert capsys.readouterr().err == ""
    load_config(DEMO, {"env_cfg.cudnn": True})
    assert capsys.readouterr().err.startswith("warning: --cfg-options env_cfg.cudnn adds cudnn to env_cfg")
    monkeypatch.setenv("RANK", "1")  # of several processes, one speaks
    load_config(DEMO, {"env_cfg.cudnn": True})
    assert capsys.readouterr().err == ""


def parsed(*words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=KeyValues, metavar="KEY=VALUE")
    return parser.parse_args(["--cfg-options", *words]).cfg_options


def test_words_are_read():
    words = ["a.b=3", "c=x=y", "d=[1,2]", "e=(1.5,None)", "f=True", "g="]
    assert parsed(*words) == {"a.b": 3, "c": "x=y", "d": [1, 2], "e": (1.5, None), "f": True, "g": ""}


@pytest.mark.parametrize("word", ["novalue", "=3", "a=[1,2", ".=1"])
def test_words_that_are_no_settings_end_with_the_usage(word, capsys):
    with pytest.raises(SystemExit) as end:
        parsed("a=1", word)
    assert end.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "argument --cfg-options: " in message
    assert repr(word) in message


def test_arguments_of_classes_are_looked_at():
    checked_arguments(nn.Dropout, {"p": 0.1}, "part")
    checked_arguments(Open, {"whatever": 1}, "part")
    with pytest.raises(UserError, match=r"^the config's part: Dropout takes no q$"):
        checked_arguments(nn.Dropout, {"q": 0.1}, "part")
