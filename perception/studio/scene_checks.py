"""One look at a whole scene before a run: everything that is wrong with it, said at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig, DataparserOutputs
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from perception.studio.camera_checks import (
    check_cameras,
    check_depth_range,
    check_forward_facing,
    check_inward_facing,
    check_projections,
)
from perception.studio.depth_range import DepthRange, depths_of_common_point, find_depth_range, spread
from perception.studio.findings import Findings
from perception.studio.image_checks import check_colours, check_images
from perception.studio.image_pairs import KEY, HighResolution, check_pairs
from perception.studio.parsers import SceneReader
from perception.studio.silhouettes import Outlines, check_silhouettes
from perception.studio.view_agreement import Agreement, check_agreement

NAMED = 4  # views of a split whose names are all said


@dataclass(frozen=True)
class SceneUse:
    """What a method asks of a scene; `scene_use()` of a model's settings gives it."""

    splits: tuple[str, ...] = ()
    """Splits that are read besides those of training and evaluation, as by a report at the end."""
    near: float | None = None
    """Smallest depth, where the settings state it."""
    far: float | None = None
    """Largest depth, where the settings state it."""
    surrounded: bool = False
    """Whether the cameras must surround a bounded scene."""
    bounds_rays: bool = False
    """Whether near and far, which then must fit the scene, bound the rays."""
    ndc: bool = False
    """Whether rays become normalised device coordinates, for which all cameras must look along -z."""


PLAIN_USE = SceneUse()
"""Of a method that asks nothing in particular."""


@dataclass
class SceneReport:
    """What was read of a scene, and what is wrong with it."""

    folder: Path
    splits: dict[str, DataparserOutputs] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)
    depth_range: DepthRange | None = None
    agreement: Agreement | None = None
    outlines: Outlines | None = None
    left_out: dict[str, float | None] = field(default_factory=dict)
    """Share of each split's pixels that masks exclude; ``None`` without masks."""

    def summary(self) -> list[str]:
        """What the scene is, in a few lines."""
        counts = ", ".join(f"{len(outputs.image_filenames)} {split}" for split, outputs in self.splits.items())
        lines = [f"Scene {self.folder}: {counts or 'no'} views"]
        for split, outputs in self.splits.items():
            sizes = {tuple(size) for size in torch.cat([outputs.cameras.width, outputs.cameras.height], -1).tolist()}
            shown = " x ".join(map(str, sizes.pop())) if len(sizes) == 1 else f"{len(sizes)} sizes"
            share = self.left_out.get(split)
            masks = "" if share is None else f", of which masks leave out {share:.0%}"
            held_out = "" if split == "train" else f" ({_names(outputs)})"
            lines.append(f"  {split}: images of {shown} pixels{masks}, {_focal(outputs)}{_pairing(outputs)}{held_out}")
        if "train" in self.splits:
            ahead = depths_of_common_point(self.splits["train"].cameras)
            if ahead is not None:
                lines.append(f"  training cameras look at a point {spread(ahead)} ahead of them")
        if self.depth_range is not None:
            near, far, reason = self.depth_range
            lines.append(f"  near {near:.4g}, far {far:.4g}: {reason}")
        if self.agreement is not None:
            correlation, pairs = self.agreement
            lines.append(f"  neighbouring training images agree to {correlation:.2f} (correlation of {pairs} pairs)")
        if self.outlines is not None:
            share, views = self.outlines
            lines.append(f"  {share:.0%} of the object's outlines in {views} training images fit together")
        return lines

    def say(self) -> None:
        """Print the warnings, and what the scene is."""
        for line in self.summary():
            CONSOLE.log(line, highlight=False, markup=False)
        for warning in self.findings.warnings:
            CONSOLE.log(f"warning: {warning}", style="yellow", highlight=False, markup=False)


def check_scene(
    reader: SceneReader,
    splits: Sequence[str],
    use: SceneUse,
    *,
    background: Tensor,
    allow_opaque: bool = False,
    read_images: bool = True,
) -> SceneReport:
    """Look at every split that a run will read.

    Image files are opened, not decoded, but for a few borders: a scene of 300 images takes seconds.

    Args:
        reader: of the scene.
        splits: that the run reads, ``"train"`` first; those of ``use`` are added.
        use: what the method asks.
        background: colour (3,) that rays show which meet nothing, where the data parser names none.
        allow_opaque: accept images without alpha in Blender layout.
        read_images: whether the run reads images at all; otherwise cameras alone are looked at.
    """
    config = reader.config
    report = SceneReport(Path(config.data))
    findings = report.findings
    need_alpha = isinstance(config, BlenderDataParserConfig) and not allow_opaque
    for split in dict.fromkeys([*splits, *use.splits]):
        with findings.collecting():
            outputs = report.splits[split] = reader.get_dataparser_outputs(split)
            check_cameras(outputs.cameras, outputs.image_filenames)
            check_projections(outputs.cameras, outputs.image_filenames, findings)
            _check_repeated(split, outputs, findings)
            if read_images:
                report.left_out[split] = check_images(outputs, config, need_alpha, findings)
                check_pairs(outputs, findings)
    _check_leaks(report)
    if use.ndc and not findings.errors:
        with findings.collecting():
            check_forward_facing(list(report.splits.values()))
    train = report.splits.get("train")
    if train is None or findings.errors:
        return report
    _check_box(train, findings)
    if use.surrounded:
        with findings.collecting():
            check_inward_facing(train.cameras)
    report.depth_range = find_depth_range(config, train, use.near, use.far)
    if use.bounds_rays and not findings.errors:
        check_depth_range(train.cameras, report.depth_range, findings)
    if read_images:
        shown = background if train.alpha_color is None else train.alpha_color
        check_colours(train, shown, _background_remedy(config), findings)
        if not findings.errors:
            report.agreement = check_agreement(train, report.depth_range, findings)
            report.outlines = check_silhouettes(train, report.depth_range, findings)
    return report


def _check_box(train: DataparserOutputs, findings: Findings) -> None:
    low, high = train.scene_box.aabb
    if not bool((high > low).all() and (high - low).isfinite().all()):
        findings.error(
            f"the scene box from {low.tolist()} to {high.tolist()} has no volume: correct the scene's bbox.txt or "
            "aabb_scale, or the data parser's --scene-scale"
        )


def _check_repeated(split: str, outputs: DataparserOutputs, findings: Findings) -> None:
    repeated = [name for name, count in Counter(outputs.image_filenames).items() if count > 1]
    if repeated:
        findings.warn(f"{len(repeated)} {split} images are listed more than once, {repeated[0]} among them")


def _check_leaks(report: SceneReport) -> None:
    if "train" not in report.splits:
        return
    trained = set(report.splits["train"].image_filenames)
    for split, outputs in report.splits.items():
        if split != "train" and (shared := [name for name in outputs.image_filenames if name in trained]):
            report.findings.warn(f"{len(shared)} {split} views are training views as well, {shared[0]} among them")


def _background_remedy(config: DataParserConfig) -> str:
    if getattr(config, "alpha_color", None) is not None:
        return "to make them alike, add --alpha-color {0} after the data parser's name"
    return "to make them alike, add --pipeline.datamanager.background {0} before the data parser's name"


def _pairing(outputs: DataparserOutputs) -> str:
    pairs: HighResolution | None = outputs.metadata.get(KEY)
    if pairs is None:
        return ""
    return f", paired with ones {pairs.scale} times larger in {pairs.image_filenames[0].parent.name}"


def _names(outputs: DataparserOutputs) -> str:
    names = [path.name for path in outputs.image_filenames]
    return ", ".join(names) if len(names) <= NAMED else f"{names[0]} to {names[-1]}"


def _focal(outputs: DataparserOutputs) -> str:
    return f"focal length {spread(outputs.cameras.fx.reshape(-1))} pixels"
