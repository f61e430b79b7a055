"""What a run goes on from."""

from types import SimpleNamespace

import pytest
from torch import nn

from perception.engine.errors import UserError
from perception.engine.resumed import ResumedRunHook


def network(width=3, **more):
    return nn.ModuleDict({"layer": nn.Linear(2, width), "norm": nn.BatchNorm1d(width), **more})


def look(checkpoint):
    ResumedRunHook().after_load_checkpoint(SimpleNamespace(model=network()), checkpoint)


def left(model, **changes):
    whole = {"state_dict": model.state_dict(), "meta": {"epoch": 1, "iter": 9}, "optimizer": {}}
    return {**whole, **changes}


def test_the_checkpoint_of_a_run_is_taken():
    look(left(network()))
    weights = {key: value for key, value in network().state_dict().items() if "num_batches" not in key}
    look(left(network(), state_dict=weights))
    look(left(network(), state_dict={f"module.{key}": value for key, value in weights.items()}))


@pytest.mark.parametrize(
    "checkpoint",
    [
        network().state_dict(),
        {"state_dict": network().state_dict(), "meta": {}},
        left(network(), meta={"iter": 3}),
        {key: value for key, value in left(network()).items() if key != "optimizer"},
    ],
)
def test_weights_alone_are_no_run(checkpoint):
    with pytest.raises(UserError, match=r"weights alone.*load_from=FILE"):
        look(checkpoint)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (network(width=4), r"6 weights .*\(first: layer\.weight\)"),
        (network(more=nn.Linear(1, 1)), r"2 weights .*\(first: more\.weight\)"),
        (nn.ModuleDict({"layer": nn.Linear(2, 3)}), r"4 weights .*\(first: norm\.weight\)"),
    ],
)
def test_other_models_are_refused(model, words):
    with pytest.raises(UserError, match=f"of another model: {words}"):
        look(left(model))
