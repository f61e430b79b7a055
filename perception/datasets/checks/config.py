"""Data sets as a config describes them, without building them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from perception.datasets.demo_data import how_to_make
from perception.engine.errors import UserError

from .examined import Examined


@dataclass(frozen=True)
class DataSet:
    """One data set of a config.

    Attributes:
        split: train, val or test.
        cfg: its part of the config, without wrappers.
        kind: its class.
    """

    split: str
    cfg: dict
    kind: type

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by label; empty where neither config nor class names any.

        Raises:
            UserError: they are one text.
        """
        named = (self.cfg.get("metainfo") or {}).get("classes") or getattr(self.kind, "METAINFO", {}).get("classes")
        if isinstance(named, str):
            raise UserError(f"metainfo.classes is the text {named!r}, not a list of names: ({named!r},)")
        return tuple(named or ())

    @property
    def ann_file(self) -> str:
        """Path of the annotations, empty for none."""
        name = self.cfg.get("ann_file")
        return self._path(name) if name else ""

    def folder(self, key: str) -> str:
        """Path of the folder that ``data_prefix`` has under a key, empty for none."""
        name = (self.cfg.get("data_prefix") or {}).get(key)
        return "" if name is None else self._path(name)

    @property
    def folders(self) -> list[str]:
        """Paths of all folders of ``data_prefix``."""
        prefixes = (self.cfg.get("data_prefix") or {}).values()
        return [self._path(value) for value in prefixes if isinstance(value, str)]

    def _path(self, name: str) -> str:
        # As MMEngine joins them: absolute names stand for themselves, and no name for data_root.
        return os.path.join(self.cfg.get("data_root") or "", name)

    def steps(self) -> Iterator[dict]:
        """All transforms of the pipeline, those of branches as well."""
        yield from _steps(self.cfg.get("pipeline") or ())


def data_sets(cfg: Config, splits: tuple[str, ...]) -> list[DataSet]:
    """The data sets of the loaders of ``splits`` (of train, val, test), those within wrappers too.

    Raises:
        UserError: the type of a data set is unknown.
    """
    init_default_scope(cfg.get("default_scope", "mmdet"))
    found = []
    for split in splits:
        loader = cfg.get(f"{split}_dataloader")
        for dataset in _unwrapped(loader["dataset"]) if loader is not None else ():
            found.append(DataSet(split, dataset, _kind(dataset["type"])))
    return found


def require_files(dataset: DataSet) -> None:
    """
    Raises:
        UserError: a file or folder that the config names is missing; with the expected layout, and what runs without.
    """
    root = Path(dataset.cfg.get("data_root") or "")
    wanted = [Path(path) for path in (dataset.ann_file, *dataset.folders) if path]
    for path in wanted:
        if not path.exists():
            layout = ", ".join(os.path.relpath(p, root) + ("" if p.suffix else "/") for p in wanted)
            # What a data set of ours is made from may be there already.
            hint = dataset.kind.remedy(root) if issubclass(dataset.kind, Examined) else None
            if hint is None and (command := how_to_make(root)):
                hint = f"make it with: {command}"
            if hint is None:
                hint = "link or copy the data set there; configs/demo/ runs on built-in data without it"
            raise UserError(f"data set not found: {path} is missing; expected the folder {root}/ with {layout}; {hint}")


def _unwrapped(dataset: dict) -> Iterator[dict]:
    if "datasets" in dataset:
        for part in dataset["datasets"]:
            yield from _unwrapped(part)
    elif "dataset" in dataset:
        yield from _unwrapped(dataset["dataset"])
    else:
        yield dataset


def _kind(name: str | type) -> type:
    if not isinstance(name, str):
        return name
    with DATASETS.switch_scope_and_registry(None) as registry:
        kind = registry.get(name)
    if kind is None:
        raise UserError(f"the config has a data set of type {name}, which is not known")
    return kind


def _steps(steps: list) -> Iterator[dict]:
    for step in steps:
        if isinstance(step, dict):
            yield step
            yield from _steps(step.get("transforms") or ())
        elif isinstance(step, (list, tuple)):
            yield from _steps(step)
