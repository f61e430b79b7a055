"""Renaming the weights of published checkpoints, in both directions.

A system's ``converter`` module lists :class:`Rename` rules and offers ``to_perception(checkpoint)`` and
``to_authors(checkpoint)``; ``tools/convert_checkpoint.py`` calls them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .errors import UserError

State = dict[str, Tensor]


@dataclass(frozen=True)
class Rename:
    """One family of keys under both names.

    Attributes:
        authors: template of the authors' keys. ``{i}`` and ``{j}`` stand for numbers, ``{rest}`` for anything.
        ours: the same under our names, with the same placeholders.
        to_ours: what happens to the values on the way to us.
        to_authors: and on the way back.
    """

    authors: str
    ours: str
    to_ours: Callable[[Tensor], Tensor] = lambda value: value
    to_authors: Callable[[Tensor], Tensor] = lambda value: value


@dataclass
class Renamed:
    """Outcome of :func:`rename`: converted weights, and the keys that no rule knows."""

    state: State = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)


@dataclass
class Conversion:
    """Outcome of a system's converter: a checkpoint ready for ``torch.save`` and what to tell the user.

    Attributes:
        checkpoint: weights, and in ``meta`` what the file said about them.
        unmatched: keys that were left out, because no rule knows them.
        num_weights: how many were converted.
        description: of the model, in a few words.
        num_classes: that it tells apart; None for weights without a classifier of their own.
    """

    checkpoint: dict[str, Any]
    unmatched: list[str]
    num_weights: int
    description: str
    num_classes: int | None = None

    @property
    def names_classes(self) -> bool:
        """Whether the converted weights know the names of their classes (in our layout)."""
        return bool(self.checkpoint.get("meta", {}).get("dataset_meta", {}).get("classes"))

    def name_classes(self, names: Sequence[str]) -> None:
        """Stores names of the classes, in the order of their labels, instead of those that the file had.

        Raises:
            UserError: there are no classes, or another number of them.
        """
        if self.num_classes is None:
            raise UserError(f"these weights ({self.description}) have no classes to name")
        if len(names) != self.num_classes:
            raise UserError(f"the model tells {self.num_classes} classes apart, but {len(names)} names are given")
        self.checkpoint.setdefault("meta", {})["dataset_meta"] = {"classes": tuple(names)}


def rename(state: Mapping[str, Tensor], rules: Iterable[Rename], *, to: str) -> Renamed:
    """Applies the first rule that fits each key.

    Args:
        state: weights by key.
        rules: tried in order.
        to: ``"ours"`` or ``"authors"``.
    """
    source, target = ("authors", "ours") if to == "ours" else ("ours", "authors")
    compiled = [(_pattern(getattr(rule, source)), getattr(rule, target), getattr(rule, f"to_{to}")) for rule in rules]
    renamed = Renamed()
    for key, value in state.items():
        for pattern, template, change in compiled:
            match = pattern.fullmatch(key)
            if match:
                renamed.state[template.format(**match.groupdict())] = change(value)
                break
        else:
            renamed.unmatched.append(key)
    return renamed


def stated_classes(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says about its classes, as MMEngine's ``dataset_meta``; empty if it says nothing.

    Args:
        meta: of MMEngine, or of the libraries before it, which keep ``CLASSES`` and ``PALETTE``.
    """
    if meta.get("dataset_meta"):
        return dict(meta["dataset_meta"])
    if not meta.get("CLASSES"):
        return {}
    return {key.lower(): meta[key] for key in ("CLASSES", "PALETTE") if meta.get(key) is not None}


def authors_meta(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The same the other way: what a checkpoint of ours says about its classes, as it was kept before MMEngine."""
    named = stated_classes(checkpoint.get("meta", {}))
    return {key.upper(): named[key] for key in ("classes", "palette") if key in named}


def require_weight(state: Mapping[str, Tensor], key: str, model: str) -> Tensor:
    """A weight that tells the sizes of a model.

    Raises:
        UserError: it is missing.
    """
    if key not in state:
        raise UserError(f"{_not(model)}: it has no weight {key}")
    return state[key]


def count_numbers(state: Iterable[str], pattern: str) -> int:
    """One more than the largest number (the pattern's first group) in the keys that fit a pattern; 0 without any."""
    matches = (re.fullmatch(pattern, key) for key in state)
    return max((int(match[1]) + 1 for match in matches if match), default=0)


def require_complete(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], model: str) -> None:
    """Refuses weights that are not those of a model.

    Args:
        state: converted weights.
        expected: shape of every weight that the model needs.
        model: its name, for the message.

    Raises:
        UserError: a weight is missing or has another shape.
    """
    missing = [key for key in expected if key not in state]
    reshaped = [key for key in expected if key in state and tuple(state[key].shape) != tuple(expected[key])]
    if missing or reshaped:
        problems = [f"{len(missing)} weights are missing, such as {missing[0]}"] if missing else []
        if reshaped:
            key = reshaped[0]
            problems.append(f"{key} has shape {tuple(state[key].shape)} instead of {tuple(expected[key])}")
        raise UserError(f"{_not(model)}: {' and '.join(problems)}")


def _not(model: str) -> str:
    return f"this file does not hold {'an' if model[0] in 'AEIO' else 'a'} {model} model"


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+\})", template)
    expressions = {"{rest}": "(?P<rest>.+)", "{i}": r"(?P<i>\d+)", "{j}": r"(?P<j>\d+)"}
    return re.compile("".join(expressions.get(part, re.escape(part)) for part in parts))
