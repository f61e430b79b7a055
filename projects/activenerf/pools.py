"""Which views there are: those that are trained on, and those that may be acquired."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig, DataparserOutputs
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from torch import Tensor

from perception.engine.atomic import replacing
from perception.studio.blender_dataparser import HOLDOUT
from perception.studio.datamanager import RayDataManager, RayDataManagerConfig
from perception.studio.errors import SceneError
from perception.studio.parsers import SceneReader, read_by
from perception.studio.samplers import generator
from projects.activenerf.acquisition import random_views

CANDIDATE, INITIAL = -1, 0
"""When a view was acquired: not yet; before the first step."""
STREAM = 3 << 22  # where the numbers of random choices begin, beyond those of steps


@dataclass
class PoolDataManagerConfig(RayDataManagerConfig):
    """Data of a method that chooses its views. A scene in Blender layout may have `transforms_holdout.json`, whose
    views are then the candidates; otherwise the training views are divided."""

    _target: type = field(default_factory=lambda: PoolDataManager)
    initial_views: int = 20
    """Training views that there are at the start, the first ones; the others are candidates. A scene with
    transforms_holdout.json starts with all of its training views."""
    initial_names: tuple[str, ...] = ()
    """Names of the images that there are at the start instead; all others are candidates."""
    initial_seed: int | None = None
    """Draw the initial views by this seed instead of taking the first."""


class PoolReader(SceneReader):
    """Reads all views that training may ever see as one split, those of `transforms_holdout.json` last."""

    def _outputs(self, split: str, **kwargs) -> DataparserOutputs:
        outputs = super()._outputs(split, **kwargs)
        if split != "train" or not has_holdout(self.config):
            return outputs
        held = super()._outputs(HOLDOUT, **kwargs)
        return joined(outputs, held)


class PoolDataManager(RayDataManager):
    """See :class:`PoolDataManagerConfig`. The model says which of the views are drawn from."""

    config: PoolDataManagerConfig

    @staticmethod
    def read_by(config: DataParserConfig) -> DataParserConfig:
        return read_by(config, PoolReader)

    @property
    def view_names(self) -> list[str]:
        """Names (N) of all training images, with their folder's where two have one name."""
        files = self.train_dataset.image_filenames
        short = [path.name for path in files]
        return short if len(set(short)) == len(short) else [f"{path.parent.name}/{path.name}" for path in files]

    def initial(self) -> list[int]:
        """Numbers of the views that there are at the start, ascending.

        Raises:
            SceneError: a name is not one of a training image, or a number is impossible.
        """
        config, names = self.config, self.view_names
        if config.initial_names:
            return _by_names(config.initial_names, names)
        held = self.train_dataparser_outputs.metadata.get(HOLDOUT, 0)
        if held:
            return list(range(len(names) - held))
        if config.initial_views < 1:
            raise SceneError(f"--pipeline.datamanager.initial-views must be at least 1, not {config.initial_views}")
        count = min(config.initial_views, len(names))
        if config.initial_seed is None:
            return list(range(count))
        if config.initial_seed < 0:
            raise SceneError(f"--pipeline.datamanager.initial-seed must not be negative, but {config.initial_seed}")
        return sorted(random_views(len(names), count, generator(config.initial_seed, STREAM)))


class Pools(NamedTuple):
    """The state of N views, as tensors of a checkpoint."""

    keys: Tensor  # (N,) int64, tells views apart by their names
    acquired: Tensor  # (N,) int64, the step before which it was; CANDIDATE or INITIAL
    rank: Tensor  # (N,) int64 among those of the same step
    scores: Tensor  # (N,) float64 with which it was chosen; not a number where it was not by a score

    @property
    def active(self) -> list[int]:
        """Views that are trained on, in the order in which they came."""
        views = (self.acquired != CANDIDATE).nonzero()[:, 0].tolist()
        return sorted(views, key=lambda view: (int(self.acquired[view]), int(self.rank[view])))

    @property
    def candidates(self) -> list[int]:
        """Views that may be acquired, ascending."""
        return (self.acquired == CANDIDATE).nonzero()[:, 0].tolist()

    @property
    def changed(self) -> int:
        """The step before which the last view came."""
        return max(int(self.acquired.max()), 0)

    def acquire(self, views: Sequence[int], step: int, scores: Sequence[float]) -> None:
        """Move candidates over, in this order.

        Raises:
            ValueError: one is not a candidate.
        """
        if wrong := [view for view in views if int(self.acquired[view]) != CANDIDATE]:
            raise ValueError(f"views {wrong} are no candidates")
        for rank, (view, score) in enumerate(zip(views, scores)):
            self.acquired[view], self.rank[view], self.scores[view] = step, rank, score

    def of_views(self, names: Sequence[str], step: int) -> Pools:
        """The same for the views of these names. Those that were not known count as acquired before ``step``."""
        known = {key: row for row, key in enumerate(self.keys.tolist())}
        pools = open_pools(names, [])
        new = []
        for view, key in enumerate(pools.keys.tolist()):
            if key in known:
                for part, own in zip(self[1:], pools[1:]):
                    own[view] = part[known[key]]
            else:
                new.append(view)
        pools.acquire(new, step, [float("nan")] * len(new))
        return pools

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """What `active_views.json` says: ``initial`` names, ``rounds`` of ``step`` and ``views`` with their ``name``
        and ``score``, and ``candidates``, the names that are left."""
        rounds: dict[int, list[dict[str, Any]]] = {}
        for view in self.active:
            score = float(self.scores[view])
            entry = {"name": names[view], "view": view, "score": None if score != score else score}
            rounds.setdefault(int(self.acquired[view]), []).append(entry)
        initial = [entry["name"] for entry in rounds.pop(INITIAL, [])]
        listed = [{"step": step, "views": views} for step, views in rounds.items()]
        return {"initial": initial, "rounds": listed, "candidates": [names[view] for view in self.candidates]}


def open_pools(names: Sequence[str], initial: Sequence[int]) -> Pools:
    """The pools before the first step."""
    count = len(names)
    pools = Pools(
        torch.tensor([view_key(name) for name in names], dtype=torch.long),
        torch.full((count,), CANDIDATE),
        torch.zeros(count, dtype=torch.long),
        torch.full((count,), float("nan"), dtype=torch.float64),
    )
    pools.acquire(initial, INITIAL, [float("nan")] * len(initial))
    return pools


def write_active_views(path: Path, pools: Pools, names: Sequence[str], **settings: Any) -> None:
    """Write `active_views.json`."""
    with replacing(path) as file:
        file.write((json.dumps({**settings, **pools.record(names)}, indent=2) + "\n").encode())


def view_key(name: str) -> int:
    """A number by which a name is known in checkpoints."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


def has_holdout(config: DataParserConfig) -> bool:
    """Whether the scene says itself which views are candidates."""
    return isinstance(config, BlenderDataParserConfig) and (config.data / f"transforms_{HOLDOUT}.json").is_file()


def joined(first: DataparserOutputs, second: DataparserOutputs) -> DataparserOutputs:
    """The views of two splits of one scene, after each other; ``metadata["holdout"]`` is the number of the second's.

    Raises:
        SceneError: masks or lens distortion are stated for one of them only.
    """
    cameras = {}
    for part in fields(Cameras):
        if not part.init:
            continue
        values = [getattr(outputs.cameras, part.name) for outputs in (first, second)]
        if any(isinstance(value, Tensor) for value in values):
            if not all(isinstance(value, Tensor) for value in values):
                raise SceneError(f"{part.name} is stated for training views or for candidates, but not for both")
            values = [torch.cat([value.to(values[0]) for value in values])]
        cameras[part.name] = values[0]
    masks = [outputs.mask_filenames for outputs in (first, second)]
    if (masks[0] is None) != (masks[1] is None):
        raise SceneError("masks are stated for training views or for candidates, but not for both")
    first.image_filenames = [*first.image_filenames, *second.image_filenames]
    first.mask_filenames = None if masks[0] is None else [*masks[0], *masks[1]]
    first.cameras = Cameras(**cameras)
    first.metadata[HOLDOUT] = len(second.image_filenames)
    return first


def _by_names(wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    places = {Path(name).stem: view for view, name in enumerate(names)} | {
        name: view for view, name in enumerate(names)
    }
    if missing := [name for name in wanted if name not in places]:
        raise SceneError(
            f"--pipeline.datamanager.initial-names names {missing[0]}, but the training images are {names[0]} to "
            f"{names[-1]}"
        )
    return sorted({places[name] for name in wanted})
