"""What kind of folder a model takes: the one place where readers, predictors and writers come together.

A kind is registered, and a config names it; configs that name none take images::

    @KINDS.register_module()
    class Texts(Kind): ...

    folder_kind = dict(type="Texts")  # in the config, with what its constructor takes
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from mmengine.config import Config
from mmengine.registry import Registry

from perception.engine.config import find_config, load_config
from perception.engine.errors import UserError
from perception.engine.overrides import checked_arguments
from perception.inference.batched import Batched
from perception.inference.loops import Loop
from perception.inference.reading import Reader
from perception.inference.showing import Showing
from perception.inference.writing import Summary

if TYPE_CHECKING:
    from perception.inference.engines.engine import Recipe
    from perception.inference.engines.member import Worker
    from perception.inference.scan import Source

    Spread = Callable[[Callable[[Any], Worker], Sequence[Sequence[Source]]], Iterator[list[Any]]]

_IMAGES = "perception.inference.images"
KINDS = Registry("folder kind", locations=[f"{_IMAGES}.kind", f"{_IMAGES}.pyramid_kind"])
DEFAULT = "Images"


@dataclass(frozen=True)
class Running:
    """How a job is run, without changing its results: `batch_size` sources or parts of them at a time in the model, on
    `device`; `workers` processes that read; with `pictures` drawn or not.
    """

    batch_size: int
    workers: int
    device: torch.device
    pictures: bool


class Kind(ABC):
    """One kind of folder. Constructors take what a config or the command line sets, by keyword.

    Attributes:
        unit, units: what a source is called in messages.
        outputs: what OUT holds, for `--help`.
    """

    unit: ClassVar[str]
    units: ClassVar[str]
    outputs: ClassVar[str] = ""

    @classmethod  # noqa: B027 (most have none)
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Adds the options that only this kind has."""

    @classmethod
    def options(cls, args: argparse.Namespace) -> dict[str, Any]:
        """What those options say, as arguments of the constructor; a config's own arguments give way to them.

        Raises:
            UserError: they contradict each other.
        """
        return {}

    @abstractmethod
    def reader(self, predictor: Any | None) -> Reader:
        """What reads a folder; `predictor` is None while the folder is only looked at."""

    @abstractmethod
    def predictor(self, cfg: Config, checkpoint: Path, running: Running) -> Any:
        """Builds the model, for :meth:`loop` (see `perception.inference.predicting`).

        Raises:
            UserError: config or checkpoint cannot be used.
        """

    def prepare(self, cfg: Config, recipe: Recipe, spread: Spread) -> None:  # noqa: B027 (most have nothing to do)
        """Does once, before an engine builds predictors in several processes, what each of them would begin with.

        Args:
            cfg: the config.
            recipe: of the run.
            spread: runs groups of sources in the engine's processes and yields a list for each group, in order: what
                the worker's events say of its sources, or a `Refused`. The worker is made by a callable that can be
                pickled, of None.

        Raises:
            UserError: config or checkpoint cannot be used.
        """

    @abstractmethod
    def writers(self, names: Sequence[str], pictures: bool) -> Sequence[Summary]:
        """A writer for each kind of result, and what sums up several of them.

        Args:
            names: of all sources.
            pictures: whether pictures are drawn.
        """

    def loop(self, running: Running) -> Loop:
        """How sources are run: batched, in order (`Ordered`) or streamed (`Streamed`)."""
        return Batched(self.unit, running.batch_size, running.workers)

    def identity(self, cfg: Config) -> Any:
        """The parts of a config on which results depend; what is not JSON counts by its name or text."""
        return {"model": cfg.get("model"), "folder_kind": cfg.get("folder_kind")}

    def settings(self) -> dict[str, Any]:
        """What else decides results, as JSON values: a run is only continued with the same."""
        return {}

    def meta(self, cfg: Config, checkpoint: Path, predictor: Any | None) -> Any:
        """What writers need to know of the model, such as the names of its classes; the same with a predictor and
        without, when there is nothing left to run.
        """
        return None

    def remark(self, sample: Any) -> str:
        """What the user should know of how a sample was read, after its name; nothing for most."""
        return ""

    def showing(self) -> Showing:
        """How the page of a run shows results."""
        return Showing()

    def places(self, pictures: bool) -> dict[str, str]:
        """What the closing summary names, if it is there: paths below OUT."""
        return {}


def kind_type(cfg: Config) -> type[Kind]:
    """The kind that a config names.

    Raises:
        UserError: there is no such kind.
    """
    declared = cfg.get("folder_kind") or {"type": DEFAULT}
    kind = declared.get("type") if isinstance(declared, Mapping) else None
    found = KINDS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(found, type) and issubclass(found, Kind)):
        raise UserError(
            f"the config's folder_kind is {declared!r}; it takes dict(type=KIND), and known are "
            f"{', '.join(sorted(KINDS.module_dict))} (a module that registers another has to be in custom_imports)"
        )
    return found


def build_kind(cfg: Config, options: Mapping[str, Any]) -> Kind:
    """The kind that a config names, with the config's arguments and, before them, `options`.

    Raises:
        UserError: there is no such kind, or it takes no such arguments.
    """
    kind = kind_type(cfg)
    declared = {key: value for key, value in (cfg.get("folder_kind") or {}).items() if key != "type"}
    checked_arguments(kind, declared, "folder_kind")
    return kind(**{**declared, **options})


def kind_of_file(path: str | None) -> type[Kind]:
    """The kind that a config names; the default one when there is no such config."""
    return kind_type(load_config(path) if path is not None and find_config(path) is not None else Config())
