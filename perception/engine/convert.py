"""Renaming the weights of published checkpoints, in both directions.

A system's ``converter`` module lists :class:`Rename` rules and offers ``to_perception(checkpoint)`` and
``to_authors(checkpoint)``; ``tools/convert_checkpoint.py`` calls them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

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
    """Outcome of a system's converter: a checkpoint ready for ``torch.save`` and what to tell the user."""

    checkpoint: dict
    unmatched: list[str]
    num_weights: int
    description: str


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
        raise UserError(f"this file does not hold a {model} model: {' and '.join(problems)}")


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+\})", template)
    expressions = {"{rest}": "(?P<rest>.+)", "{i}": r"(?P<i>\d+)", "{j}": r"(?P<j>\d+)"}
    return re.compile("".join(expressions.get(part, re.escape(part)) for part in parts))
