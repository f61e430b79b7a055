"""Settings of a model that have to agree with the number of classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_COUNTS = ("num_classes", "num_things_classes", "num_stuff_classes")
# Parts whose classes are others: proposals are of one class, and backbones classify images.
_OTHERS = ("backbone", "rpn_head", "data_preprocessor", "train_cfg", "test_cfg")


@dataclass(frozen=True)
class Setting:
    """A number of classes, or weights by class, in a model's config.

    Attributes:
        key: dotted, below ``model``.
        kind: ``num_classes``, ``num_things_classes``, ``num_stuff_classes`` or ``class_weight``.
        value: what the config says.
        background: with ``class_weight``: the weight that follows those of the classes, if one does.
    """

    key: str
    kind: str
    value: object
    background: tuple = ()

    def wanted(self, classes: int, things: int | None) -> object:
        """What it has to be.

        Args:
            classes: number of all classes.
            things: number of things among them, for panoptic segmentation.
        """
        if self.kind == "num_stuff_classes":
            return classes - (things or 0)
        if self.kind == "num_things_classes":
            return things or 0
        if self.kind == "class_weight":
            return [1.0] * classes + list(self.background)
        # A head beside one of its own for stuff (Panoptic FPN) is of things alone.
        return classes if things is None else things


def class_settings(model: dict) -> list[Setting]:
    """All settings of a model that follow from its classes, in the order of the config."""
    return list(_settings(model, ""))


def _settings(node: object, place: str) -> Iterator[Setting]:
    if isinstance(node, (list, tuple)):
        for number, part in enumerate(node):
            yield from _settings(part, f"{place}.{number}")
        return
    if not isinstance(node, dict):
        return
    counts = {key: node[key] for key in _COUNTS if isinstance(node.get(key), int)}
    for key, value in counts.items():
        yield Setting(f"{place}.{key}".lstrip("."), key, value)
    total = counts.get("num_classes", sum(counts.values()))
    for key, part in node.items():
        if key in _OTHERS:
            continue
        weights = part.get("class_weight") if isinstance(part, dict) else None
        if counts and isinstance(weights, (list, tuple)):
            yield Setting(
                f"{place}.{key}.class_weight".lstrip("."), "class_weight", list(weights), tuple(weights[total:][-1:])
            )
        yield from _settings(part, f"{place}.{key}")
