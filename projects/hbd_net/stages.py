"""Detectors that were trained one after the other become one of two branches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perception.engine.checkpoint import state_dict_of
from perception.engine.convert import State, stated_classes
from perception.engine.errors import UserError

from .detector import GLOBAL, HBDNet, HBDNetSingleStage


def merge_stages(native: Mapping[str, Any], reduced: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint for :class:`HBDNet` (or :class:`HBDNetSingleStage`) without fusion.

    Args:
        native: of the detector of native images, as loaded: two-stage or single-stage, with one branch.
        reduced: of that of reduced images, of equal parts.

    Raises:
        UserError: one of the two is no such detector, or they do not go together.
    """
    parts = {name: _branch(checkpoint, name) for name, checkpoint in (("native", native), ("reduced", reduced))}
    shapes = {name: {key: tuple(value.shape) for key, value in state.items()} for name, state in parts.items()}
    for one, other in (("native", "reduced"), ("reduced", "native")):
        alone = sorted(shapes[one].keys() - shapes[other].keys())
        if alone:
            raise UserError(
                f"the two checkpoints are of different detectors: {len(alone)} weights of the {one} one are not in the "
                f"{other} one, such as {alone[0]}"
            )
    for key, shape in shapes["native"].items():
        if shape != shapes["reduced"][key]:
            raise UserError(
                f"the two checkpoints are of different detectors: {key} has shape {shape} in the native one and "
                f"{shapes['reduced'][key]} in the reduced one"
            )
    classes = [stated_classes(checkpoint.get("meta", {})).get("classes") for checkpoint in (native, reduced)]
    if None not in classes and tuple(classes[0]) != tuple(classes[1]):
        raise UserError(f"the two checkpoints know different classes: {_listed(classes[0])}; {_listed(classes[1])}")
    merged = {**parts["native"], **{f"{GLOBAL}{key}": value for key, value in parts["reduced"].items()}}
    meta = stated_classes(native.get("meta", {})) or stated_classes(reduced.get("meta", {}))
    return {"state_dict": merged, **({"meta": {"dataset_meta": meta}} if meta else {})}


def _branch(checkpoint: Mapping[str, Any], name: str) -> State:
    """The weights of a detector with one branch."""
    state = dict(state_dict_of(checkpoint))
    if any(key.startswith(GLOBAL) for key in state):
        raise UserError(f"the {name} checkpoint has two branches already; give one of a stage")
    found = {key.partition(".")[0] for key in state}
    wanted = next((kind.PARTS for kind in (HBDNet, HBDNetSingleStage) if found >= set(kind.PARTS)), None)
    if wanted is None:
        missing = sorted(set(HBDNet.PARTS) - found)
        raise UserError(
            f"the {name} checkpoint is not of a detector that was trained in a stage: it has no weights of "
            f"{', '.join(missing)}"
        )
    strange = sorted(found - set(wanted) - {"data_preprocessor"})
    if strange:
        raise UserError(f"the {name} checkpoint has weights that HBD-Net has no place for: {', '.join(strange)}")
    return {key: value for key, value in state.items() if key.partition(".")[0] in wanted}


def _listed(classes: Any) -> str:
    return ", ".join(map(str, classes))
