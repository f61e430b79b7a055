"""What a checkpoint knows of its run, and what is said when a run that does not fit goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from perception.studio.datamanager import RayDataManager
from perception.studio.errors import SceneError
from perception.studio.scene import describe_parser
from perception.studio.stages import StageSchedule

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import TrainerConfig
    from nerfstudio.pipelines.base_pipeline import VanillaPipeline

# Settings of the data manager that do not change what is trained on, or that the scene's record covers.
FREE_OF_DATA = {
    "data",
    "dataparser",
    "eval_num_rays_per_batch",
    "eval_num_images_to_sample_from",
    "eval_num_times_to_repeat_images",
    "eval_image_indices",
    "scene_use",
    "images_in_memory",
    "images_on_gpu",
    "masks_on_gpu",
}
FREE = {"pipeline.datamanager.train_num_rays_per_batch", "pipeline.datamanager.allow_opaque", "machine.seed"}
POSE_TOLERANCE = 1e-4  # of the cameras' extent; parsers that orient a scene do it in floating point
MOST_NAMED = 4  # differences in one sentence
PLAIN = (bool, int, float, str, type(None))


def run_record(config: TrainerConfig, pipeline: VanillaPipeline) -> dict[str, Any]:
    """What a checkpoint keeps of its run besides weights: strings, numbers, lists, dictionaries and tensors.

    ``method``; ``plan``, the stages as [name, steps]; ``settings``, by the names of their options; ``parser``, see
    :func:`~perception.studio.scene.describe_parser`; ``scene``, see :func:`scene_record`.
    """
    model, manager = config.pipeline.model, config.pipeline.datamanager
    settings = {
        **_flat(model, "pipeline.model"),
        **_flat(manager, "pipeline.datamanager", without=FREE_OF_DATA),
        **_flat(dict(config.optimizers), "optimizers"),
        "machine.seed": config.machine.seed,
    }
    return {
        "method": config.method_name,
        "plan": [[stage.name, stage.end - stage.start] for stage in model.schedule().stages],
        "settings": settings,
        "parser": describe_parser(manager.dataparser, manager.data or manager.dataparser.data),
        "scene": scene_record(pipeline.datamanager) if isinstance(pipeline.datamanager, RayDataManager) else None,
    }


def scene_record(manager: RayDataManager) -> dict[str, Any]:
    """What tells one scene from another: names (N) of the training images, ``poses`` (N, 3, 4), ``intrinsics`` (N, 6)
    as fx, fy, cx, cy, width, height, and a checksum (N,) of each image's pixels; the ``background`` (3,), the scene
    ``box`` (2, 3), and ``depths``, near and far."""
    cameras = manager.train_dataset.cameras
    intrinsics = [getattr(cameras, name).reshape(-1, 1) for name in ("fx", "fy", "cx", "cy", "width", "height")]
    return {
        "names": [path.name for path in manager.train_dataset.image_filenames],
        "poses": cameras.camera_to_worlds.float().cpu(),
        "intrinsics": torch.cat(intrinsics, 1).float().cpu(),
        "checksums": manager.pixels.checksums(),
        "background": manager.background,
        "box": manager.train_dataset.scene_box.aabb.float().cpu(),
        "depths": torch.tensor(manager.depth_range[:2], dtype=torch.float32),
    }


def check_resumable(saved: Mapping[str, Any], own: Mapping[str, Any], model: Any, step: int, checkpoint: Path) -> str:
    """Raise unless a run may go on from a checkpoint.

    Args:
        saved: the record in the checkpoint.
        own: the record of the run that is to go on, both from :func:`run_record`.
        model: the settings of its model, a :class:`~perception.studio.model.RadianceModelConfig`.
        step: of the checkpoint.
        checkpoint: its file, for the sentence.

    Returns:
        A sentence on settings that differ and may; empty if none do.

    Raises:
        SceneError: method, stages, settings or scene are others; it says which, and what would fit.
    """
    if saved["method"] != own["method"]:
        raise SceneError(f"{checkpoint} is of the method {saved['method']}, not of {own['method']}")
    before, now = saved["settings"], own["settings"]
    # An option that only one of them has came or went between two versions of the program.
    differing = {name: (before[name], now[name]) for name in before if name in now and before[name] != now[name]}
    _check_plan(saved["plan"], own["plan"], step, checkpoint, differing)
    may = {name: values for name, values in differing.items() if _is_free(name, model, saved["plan"], step)}
    must = {name: values for name, values in differing.items() if name not in may}
    if must:
        raise SceneError(
            f"the run cannot go on from {checkpoint}, which was trained with other settings: {_listed(must)}; "
            f"repeat {_options(must)}, or start anew without the checkpoint"
        )
    if saved["scene"] is not None and own["scene"] is not None:
        added = model.views_may_be_added
        difference = scene_difference(
            saved["scene"], _without_added(saved["scene"], own["scene"]) if added else own["scene"]
        )
        if difference:
            raise SceneError(f"{checkpoint} was trained on another scene, or another reading of it: {difference}")
    return f"Going on with other settings than before: {_listed(may)}." if may else ""


def check_stage(stage: int, schedule: StageSchedule, step: int, checkpoint: Path) -> None:
    """Raise unless a checkpoint without a record is of the stage that its step belongs to.

    Raises:
        SceneError: it is of another.
    """
    expected = schedule.at(step)
    if stage != expected.index and 0 <= stage < len(schedule.stages):
        raise SceneError(
            f"{checkpoint} is of stage {schedule.stages[stage].name}, but its step {step} is in stage {expected.name} "
            f"of this run ({schedule} steps): repeat the options of the run that wrote it"
        )


def scene_difference(saved: Mapping[str, Any], own: Mapping[str, Any]) -> str | None:
    """The first thing in which two scenes differ, in words; ``None`` where they agree."""
    counts = len(saved["names"]), len(own["names"])
    if counts[0] != counts[1]:
        return f"{counts[0]} training images there, {counts[1]} here"
    for before, now in zip(saved["names"], own["names"]):
        if before != now:
            return f"training image {before} there, {now} in its place here"
    names = own["names"]
    extent = float(saved["poses"][:, :, 3].abs().max().clamp(min=1e-6))
    scale = torch.tensor([1.0, 1, 1, extent])
    moved = ((saved["poses"] - own["poses"]).abs() > POSE_TOLERANCE * scale).flatten(1).any(1)
    lens = ~torch.isclose(saved["intrinsics"], own["intrinsics"], rtol=1e-4, atol=1e-3).all(1)
    other = saved["checksums"] != own["checksums"]
    for what, differs in (("poses", moved), ("focal length, centre or size", lens), ("pixels", other)):
        if bool(differs.any()):
            first = int(differs.nonzero()[0])
            return f"{int(differs.sum())} of {len(names)} training images have other {what}, {names[first]} first"
    for key, what in (("background", "background"), ("box", "scene box"), ("depths", "near and far")):
        if key not in saved or key not in own:  # an earlier version wrote the checkpoint
            continue
        tolerance = POSE_TOLERANCE * float(saved[key].abs().max().clamp(min=1e-6))
        if not torch.allclose(saved[key], own[key], rtol=0, atol=tolerance):
            return f"{what} {_rounded(saved[key])} there, {_rounded(own[key])} here"
    return None


def _without_added(saved: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a scene that another record has as well, in its order, if it has all of that."""
    rows = {name: row for row, name in enumerate(own["names"])}
    if len(rows) < len(own["names"]) or not rows.keys() >= set(saved["names"]):
        return own
    kept = [rows[name] for name in saved["names"]]
    views = {key: own[key][torch.tensor(kept)] for key in ("poses", "intrinsics", "checksums")}
    return {**own, **views, "names": [own["names"][row] for row in kept]}


def _rounded(values: Tensor) -> str:
    return " ".join(f"{value:.5g}" for value in values.flatten().tolist())


def _check_plan(saved: list, own: list, step: int, checkpoint: Path, differing: dict) -> None:
    """Raise unless all stages that the checkpoint has begun start where they did."""
    if not saved or not own:
        return
    before, now = (StageSchedule([tuple(stage) for stage in plan]) for plan in (saved, own))
    stage, present = before.at(step), now.at(step)
    if (stage.name, stage.start) == (present.name, present.start):
        return
    raise SceneError(
        f"{checkpoint} is of stage {stage.name}, which began at step {stage.start} ({before} steps), but with the "
        f"settings of this run ({now} steps) its step {step} is in stage {present.name}, which begins at step "
        f"{present.start}: repeat {_options(differing)}"
    )


def _is_free(name: str, model: Any, plan: list, step: int) -> bool:
    """Whether a setting may be another in the resumed run: it changes nothing that the checkpoint holds."""
    prefix, _, within = name.partition("pipeline.model.")
    if prefix or not within:
        return name in FREE
    stage, _, setting = within.partition(".")
    starts: dict[str, int] = {}
    for known in StageSchedule([tuple(entry) for entry in plan]).stages:
        starts.setdefault(known.name.partition(".")[0], known.start)  # the first of stages that share their settings
    to_come = starts.get(stage, 0) > step
    return within not in model.sizes and (within in model.free_on_resume or setting == "iters" or to_come)


def _listed(differing: Mapping[str, tuple[Any, Any]]) -> str:
    parts = [f"{name} {before} there, {now} here" for name, (before, now) in differing.items()]
    more = len(parts) - MOST_NAMED
    return "; ".join(parts[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _options(differing: Mapping[str, tuple[Any, Any]]) -> str:
    def typed(value: Any) -> str:
        return " ".join(map(str, value)) if isinstance(value, list) else str(value)

    return " ".join(f"--{name.replace('_', '-')} {typed(before)}" for name, (before, _) in differing.items())


def _flat(value: Any, name: str, without: AbstractSet[str] = frozenset()) -> dict[str, Any]:
    """Settings by the names of their options, as values that a checkpoint may hold; others are left out."""
    if is_dataclass(value):
        parts = {option.name: getattr(value, option.name) for option in fields(value) if option.name not in without}
    elif isinstance(value, Mapping):
        parts = dict(value)
    elif isinstance(value, (list, tuple)) and all(isinstance(entry, PLAIN) for entry in value):
        return {name: list(value)}
    else:
        return {name: str(value) if isinstance(value, Path) else value} if isinstance(value, (*PLAIN, Path)) else {}
    flat: dict[str, Any] = {}
    for part, entry in parts.items():
        if part != "_target":
            flat |= _flat(entry, f"{name}.{part}")
    return flat
