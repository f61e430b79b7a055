"""`--cfg-options KEY=VALUE`: reading them, and telling settings that something reads from misspelt ones."""

from __future__ import annotations

import argparse
import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config, DictAction

from .errors import UserError
from .torchrun import rank

# What MMEngine's runner and the tools look up in a config beside the arguments of the runner.
_READ_AT_THE_ROOT = (
    *("custom_imports", "folder_kind", "runner_type", "sync_bn", "compile", "model_wrapper_cfg"),
    *("find_unused_parameters", "activation_checkpointing", "efficient_conv_bn_eval", "tta_model", "tta_pipeline"),
)
# What is taken out of a group of settings before its class sees them.
_TAKEN_BEFORE = ("type", "priority", "constructor", "paramwise_cfg", "convert_to_iter_based", "_delete_", "_scope_")
_TAKEN_FROM_LOADERS = ("dataset", "sampler", "batch_sampler", "collate_fn", "num_batch_per_epoch")


class KeyValues(DictAction):
    """Reads `KEY=VALUE` words; one that is none ends the command with its usage."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        for word in values:
            if "=" not in word or not word.partition("=")[0].strip("."):
                parser.error(f"argument {option_string}: {word!r} is not KEY=VALUE")
            try:
                super().__call__(parser, namespace, [word], option_string)
            except (AssertionError, ValueError, SyntaxError):
                parser.error(f"argument {option_string}: the value of {word!r} cannot be read")


def check_overrides(cfg: Config, options: Mapping[str, Any], warn: Callable[[str], object] | None = None) -> None:
    """Looks for keys that nothing reads, which without a word would leave everything as it is.

    Args:
        cfg: the config before it is changed.
        options: dotted keys and values.
        warn: takes a line for each key that may have no effect: a variable of the config, or a new key of a group of
            settings that names no class, or one that hands on what it does not know; by default, lines of the first
            process of a job go to standard error.

    Raises:
        UserError: a key is new at the root of the config, where nobody reads it, or is no argument of the class of its
            group; or a group of settings is to become a number or a text.
    """
    for key in options:
        _check(cfg, key, options[key], warn or _print)


def _print(line: str) -> None:
    if rank() == 0:
        print(line, file=sys.stderr)


def _check(cfg: Config, key: str, value: Any, warn: Callable[[str], object]) -> None:
    first = key.partition(".")[0]
    known = {*_runner_arguments(), *_READ_AT_THE_ROOT}
    if first not in known:
        if first not in cfg:
            raise UserError(f"--cfg-options {key}: the config has no {first}{_meant(first, known)}")
        warn(f"warning: --cfg-options {key} changes a variable of the config, after its settings have been made of it")
        return
    node: Any = cfg
    parents: list[str] = []
    for name in key.split("."):
        if isinstance(node, Sequence) and not isinstance(node, str) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, (Config, Mapping)) and name in node:
            node = node[name]
        else:
            break
        parents.append(name)
    else:
        if isinstance(node, Mapping) and isinstance(value, (bool, int, float, str)):
            raise UserError(
                f"--cfg-options {key}: {key} is a group of settings; name one, such as {key}.{next(iter(node), 'x')}"
            )
        return
    if not parents or not isinstance(node, (Config, Mapping)):
        return  # a group that is all new; or for the merge, which says what is there instead
    place = ".".join(parents)
    if len(parents) == 1 and place.endswith("_dataloader"):
        taken = _Arguments("a data loader", _loader_arguments())
    else:
        taken = _arguments(node.get("type"))
    if name in taken.names:
        return
    if not taken.all:
        warn(
            f"warning: --cfg-options {key} adds {name} to {place}, which had no such setting"
            f"{_meant(name, {*node, *taken.names})}"
        )
    else:
        raise UserError(f"--cfg-options {key}: {taken.of} takes no {name}{_meant(name, taken.names)}")


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, [*map(str, known)], 1)
    return f"; {close[0]}?" if close else ""


@dataclass(frozen=True)
class _Arguments:
    """What a class or function takes.

    Attributes:
        of: its name.
        names: arguments, of base classes, too, where it hands on what it does not know.
        all: there are no others.
    """

    of: str
    names: set[str]
    all: bool = True


def _arguments(kind: Any) -> _Arguments:
    if not callable(kind):
        return _Arguments("", set(), all=False)  # the name of a registry, or no class at all
    names: set[str] = set()
    for function in [base.__init__ for base in kind.__mro__[:-1]] if isinstance(kind, type) else [kind]:
        try:
            parameters = inspect.signature(function).parameters.values()
        except ValueError:  # compiled, and says nothing
            return _Arguments(kind.__name__, names, all=False)
        first = not names
        names |= {parameter.name for parameter in parameters} | {*_TAKEN_BEFORE}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            # A class that hands on arguments may take some of them out before.
            return _Arguments(kind.__name__, names - {"self"}, all=first)
    return _Arguments(kind.__name__, names - {"self"}, all=False)


def _runner_arguments() -> set[str]:
    from mmengine.runner import Runner

    return {*inspect.signature(Runner).parameters} - {"cfg"}


def _loader_arguments() -> set[str]:
    from torch.utils.data import DataLoader

    return {*inspect.signature(DataLoader.__init__).parameters, *_TAKEN_FROM_LOADERS} - {"self"}


def checked_arguments(kind: type, arguments: Mapping[str, Any], place: str) -> None:
    """Refuses arguments that a class does not take.

    Args:
        kind: the class.
        arguments: by name.
        place: where they stand in the config, for the sentence.

    Raises:
        UserError: naming the first.
    """
    taken = _arguments(kind)
    for argument in arguments:
        if taken.all and argument not in taken.names:
            raise UserError(f"the config's {place}: {taken.of} takes no {argument}{_meant(argument, taken.names)}")
