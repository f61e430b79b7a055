"""Folders of camera rigs in which objects are found."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope

from perception.datasets.driving.infos import CAMERAS, CLASSES
from perception.engine.checkpoint import load_checkpoint_file, load_weights
from perception.engine.errors import UserError
from perception.inference.arguments import fraction
from perception.inference.kinds import KINDS, Kind, Running
from perception.inference.loops import Loop
from perception.inference.ordered import Ordered
from perception.inference.writing import Summary

from .options import Choice
from .predictor import RigPredictor
from .reader import RigFrame, RigReader
from .showing import RigsShowing
from .writer import PICTURES, RESULTS, RigWriter

_LOADER = "LoadRigImages"


@KINDS.register_module()
class Rigs(Kind):
    """Frames of camera rigs; a config's ``folder_kind = dict(type=Rigs)`` selects it.

    Args:
        version, split, scenes: of nuScenes, see :class:`.options.Choice`.
        cameras: for each of the model's places, the rig's name of its camera.
        score_thr: what pictures show.
    """

    unit, units = "frame", "frames"
    outputs = """\
  results_nusc.json   boxes in the global frame, in the format of nuScenes' benchmark
  images/             the cameras in their places with boxes as wire frames, and the view from above
"""

    def __init__(
        self,
        version: str | None = None,
        split: str | None = None,
        scenes: Sequence[str] = (),
        cameras: Sequence[str] | None = None,
        score_thr: float = 0.3,
    ) -> None:
        if len(set(cameras or ())) != len(cameras or ()):
            raise UserError(f"--cameras {','.join(cameras or ())} names a camera twice")
        slots = tuple(cameras or CAMERAS)
        self._choice = Choice(version, split, tuple(scenes), slots, given=cameras is not None)
        self._score_thr = score_thr
        self._looks_back = False

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        group = parser.add_argument_group("which frames")
        group.add_argument("--version", help="of nuScenes' tables, where there are several, e.g. v1.0-mini")
        group.add_argument("--split", help="of nuScenes, e.g. val (default: all scenes)")
        group.add_argument("--scenes", nargs="+", metavar="NAME", help="names of scenes (default: all)")
        group = parser.add_argument_group("how frames are seen")
        group.add_argument(
            "--cameras",
            type=lambda text: text.split(","),
            metavar="NAME,NAME,...",
            help=f"the rig's names of its cameras in the order of the model's places (default: {','.join(CAMERAS)})",
        )
        group.add_argument(
            "--score-thr", type=fraction, help="pictures show boxes of at least this score (default: 0.3)"
        )

    @classmethod
    def options(cls, args: argparse.Namespace) -> dict[str, Any]:
        if args.split and args.scenes:
            raise UserError("--split and --scenes exclude each other")
        names = ("version", "split", "scenes", "cameras", "score_thr")
        return {name: getattr(args, name) for name in names if getattr(args, name) is not None}

    def reader(self, predictor: RigPredictor | None) -> RigReader:
        return RigReader(self._choice)

    def predictor(self, cfg: Config, checkpoint: Path, running: Running) -> RigPredictor:
        init_default_scope(cfg.get("default_scope", "mmdet"))
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        if not all(hasattr(model, name) for name in ("look", "detect", "frames", "num_cams")):
            raise UserError(f"{type(model).__name__} finds nothing around a rig: it has no look and detect")
        load_weights(model, load_checkpoint_file(checkpoint), checkpoint)
        later = [offset for offset in model.frames if offset > 0]
        if later:
            raise UserError(
                f"the model looks at frames {later} after each frame; a folder is run in the order of time: "
                "tools/test.py takes such models"
            )
        slots = self._choice.cameras
        if len(slots) != model.num_cams:
            raise UserError(
                f"the model has places for {model.num_cams} cameras, --cameras names {len(slots)} ({', '.join(slots)})"
            )
        predictor = RigPredictor(model.to(running.device).eval(), _pipeline(cfg), RigReader(self._choice))
        self._looks_back = predictor.looks_back
        return predictor

    def loop(self, running: Running) -> Loop:
        return Ordered(self.unit, running.workers)

    def writers(self, names: Sequence[str], pictures: bool) -> Sequence[Summary]:
        return [RigWriter(names, pictures, self._score_thr)]

    def settings(self) -> dict[str, Any]:
        chosen = {name: value for name, value in vars(self._choice).items() if name != "given"}
        chosen |= {"scenes": list(self._choice.scenes), "cameras": list(self._choice.cameras)}
        return {**chosen, "score_thr": self._score_thr}

    def meta(self, cfg: Config, checkpoint: Path, predictor: RigPredictor | None) -> dict[str, Any]:
        dataset = (cfg.get("test_dataloader") or {}).get("dataset") or {}
        return {"classes": list((dataset.get("metainfo") or {}).get("classes") or CLASSES)}

    def remark(self, sample: RigFrame) -> str:
        return sample.note if self._looks_back else ""

    def showing(self) -> RigsShowing:
        return RigsShowing()

    def places(self, pictures: bool) -> dict[str, str]:
        return {"results": RESULTS, "pictures": PICTURES} if pictures else {"results": RESULTS}


def _pipeline(cfg: Config) -> Compose:
    """The test pipeline without its loader: images are read by other processes."""
    steps = list(((cfg.get("test_dataloader") or {}).get("dataset") or {}).get("pipeline") or ())
    if not steps or _name(steps[0]) != _LOADER:
        raise UserError(f"the config's test pipeline must begin with {_LOADER}: other images than those would be read")
    return Compose(steps[1:])


def _name(step: Mapping[str, Any]) -> str:
    kind = step["type"]
    return kind if isinstance(kind, str) else kind.__name__
