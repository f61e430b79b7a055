"""The authors' Lightning checkpoints to ours and back.

Ours holds ``settings`` and ``state_dict`` of a :class:`~projects.rise_sdf.core.RiseSDF`; or it is the checkpoint of a
run, whose field has the prefix ``_model.field.``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from perception.engine.convert import Conversion, Rename, State, count_numbers, rename, require_complete, require_weight
from perception.engine.errors import UserError
from perception.ops.hash_grid import hash_grid_layout
from projects.rise_sdf.core import RiseSDF
from projects.rise_sdf.settings import GeometrySettings, GridSettings, HeadSettings, LightSettings

MODEL = "RISE-SDF"
RUN = "_model.field."
HEADS = {
    "albedo": "albedo",
    "metallic": "metallic",
    "roughness": "roughness",
    "env": "radiance",
    "secondary": "indirect",
}
"""Networks of the texture: the authors' names and ours."""
PARAMS, BASE = "surface.sdf.encoding.params", "light.base"
NORM = "parametrizations.weight.original"

RULES = [
    Rename("model.variance.variance", "surface.deviation.variance"),
    Rename("model.geometry.encoding.encoding.encoding.params", PARAMS),
    Rename("model.geometry.network.layers.{i}.bias", "surface.sdf.network.layers.{i}.bias"),
    Rename("model.geometry.network.layers.{i}.weight_g", "surface.sdf.network.layers.{i}." + NORM + "0"),
    Rename("model.geometry.network.layers.{i}.weight_v", "surface.sdf.network.layers.{i}." + NORM + "1"),
    *[
        Rename(f"model.texture.{theirs}_network.layers.{{i}}.{{rest}}", f"texture.{ours}.layers.{{i}}.{{rest}}")
        for theirs, ours in HEADS.items()
    ],
    Rename("model.texture.FG_LUT", "texture.table"),
    Rename("model.emitter.base", BASE),
    Rename("model.occupancy_grid.occs", "surface.occupancy.occs"),
    Rename("model.occupancy_grid.binaries", "surface.occupancy.binaries"),
]
DERIVED = {
    "model.scene_aabb",
    "model.texture.dir_encoding.encoding.params",
    "model.occupancy_grid.resolution",
    "model.occupancy_grid.aabbs",
}
"""Keys whose content follows from the settings, and is made anew on the way back."""


REMADE = ("texture.table", "surface.occupancy.occs", "surface.occupancy.binaries")
"""Buffers that a file may lack: the table is computed, and everything is taken for occupied."""

FINISHED = 1 << 30
"""A step behind all schedules."""

GROWTH = 1.4472692012786865
"""The published growth of the grid's levels in single precision, of which tiny-cuda-nn takes the logarithm: the finest
of its levels has 8190.997 cells a side, with the unrounded growth 8191."""


def to_perception(checkpoint: Mapping[str, Any], grid: GridSettings | None = None) -> Conversion:
    """A checkpoint of the authors as one of ours.

    Args:
        checkpoint: with ``state_dict``, as :func:`perception.engine.checkpoint.load_checkpoint_file` read it.
        grid: of the hash grid, which the file does not state; by default the published one, with as many levels as the
            network reads, and rounded as tiny-cuda-nn has it.

    Raises:
        UserError: it is not a whole model, or its hash grid has another layout.
    """
    state = dict(checkpoint.get("state_dict", checkpoint))
    renamed = rename({key: value for key, value in state.items() if isinstance(value, Tensor)}, RULES, to="ours")
    box = state.get("model.scene_aabb")
    settings = settings_of(renamed.state, grid, None if box is None else float(box.flatten()[3:].max()))
    field = build(settings)
    for key in REMADE:
        renamed.state.setdefault(key, field.state_dict()[key])
    _check(renamed.state, field)
    renamed.state["surface.deviation.variance"] = renamed.state["surface.deviation.variance"].reshape(())
    content = {
        "meta": {"system": "rise_sdf", "step": int(checkpoint.get("global_step", 0))},
        "settings": settings,
        "state_dict": renamed.state,
    }
    left = [key for key in renamed.unmatched if key not in DERIVED]
    return Conversion(content, left, len(renamed.state), _describe(settings))


def to_authors(checkpoint: Mapping[str, Any]) -> Conversion:
    """A checkpoint of ours, or of a run, as one that the authors' code loads."""
    state = own_state(checkpoint)
    settings = checkpoint.get("settings") or settings_of(state, GridSettings(), None, check=False)
    renamed = rename(state, RULES, to="authors")
    radius, size = settings["geometry"]["radius"], settings["geometry"]["occupancy_resolution"]
    low = require_weight(state, PARAMS, MODEL)
    box = low.new_tensor([-radius] * 3 + [radius] * 3)
    renamed.state |= {
        "model.scene_aabb": box,
        "model.texture.dir_encoding.encoding.params": low.new_zeros(0),
        "model.occupancy_grid.resolution": low.new_tensor([size] * 3).int(),
        "model.occupancy_grid.aabbs": box[None],
    }
    step = int(checkpoint.get("meta", {}).get("step", checkpoint.get("step", 0)))
    content = {"state_dict": renamed.state, "global_step": step}
    return Conversion(content, renamed.unmatched, len(renamed.state), _describe(settings))


def own_state(checkpoint: Mapping[str, Any]) -> State:
    """Weights of a field in a file of ours.

    Raises:
        UserError: there are none.
    """
    if "pipeline" in checkpoint:
        run = checkpoint["pipeline"]
        state = {key.removeprefix(RUN): value for key, value in run.items() if key.startswith(RUN)}
    else:
        state = dict(checkpoint.get("state_dict", {}))
    require_weight(state, BASE, MODEL)
    return state


def load(checkpoint: Mapping[str, Any]) -> RiseSDF:
    """The field of a converted file.

    Raises:
        UserError: it is not one, or not whole.
    """
    if "settings" not in checkpoint or "state_dict" not in checkpoint:
        raise UserError(f"this file does not hold a converted {MODEL} model: it has no settings")
    field = build(checkpoint["settings"])
    _check(checkpoint["state_dict"], field)
    field.load_state_dict(checkpoint["state_dict"])
    # Levels of the grid and the slope's share follow the step; a file that does not know its own is of a finished run.
    field.surface.set_step(int(checkpoint.get("meta", {}).get("step", 0)) or FINISHED)
    return field


def build(settings: Mapping[str, Any]) -> RiseSDF:
    """An untrained field of these settings: ``geometry`` (with ``grid`` in it), ``heads``, ``light``."""
    geometry = dict(settings["geometry"])
    return RiseSDF(
        GeometrySettings(**{**geometry, "grid": GridSettings(**geometry["grid"])}),
        HeadSettings(**settings["heads"]),
        LightSettings(**settings["light"]),
    )


def settings_of(
    state: Mapping[str, Tensor], grid: GridSettings | None, radius: float | None, *, check: bool = True
) -> dict[str, Any]:
    """Sizes that the shapes of weights tell, under the names of the settings.

    Raises:
        UserError: a weight that tells is missing, or the hash grid has not the layout.
    """

    def shape(key: str) -> tuple[int, ...]:
        return tuple(require_weight(state, key, MODEL).shape)

    def depth(network: str) -> int:
        return (count_numbers(state, re.escape(network) + r"\.layers\.(\d+)\.bias") - 1) // 2

    width, inputs = shape(f"surface.sdf.network.layers.0.{NORM}1")
    last = 2 * depth("surface.sdf.network")
    features = shape(f"surface.sdf.network.layers.{last}.bias")[0]
    grid = grid or GridSettings(num_levels=(inputs - 3) // 2, per_level_scale=GROWTH)
    entries = shape(PARAMS)[0]
    layout = hash_grid_layout(grid.num_levels, grid.base_resolution, grid.per_level_scale, grid.log2_table_size)
    if check and layout.num_entries * grid.features != entries:
        raise UserError(
            f"the hash grid has {entries} numbers, but one of {grid.num_levels} levels from {grid.base_resolution} "
            f"vertices with tables of 2^{grid.log2_table_size} has {layout.num_entries * grid.features}"
        )
    head_width, head_inputs = shape("texture.albedo.layers.0.weight")
    directions = shape("texture.radiance.layers.0.weight")[1] - features
    geometry = GeometrySettings(
        grid=grid,
        radius=1.5 if radius is None else radius,
        features=features,
        width=width,
        depth=depth("surface.sdf.network"),
        occupancy_resolution=shape("surface.occupancy.binaries")[-1] if "surface.occupancy.binaries" in state else 128,
    )
    heads = HeadSettings(
        width=head_width,
        depth=depth("texture.albedo"),
        material_depth=depth("texture.metallic"),
        frequencies=(head_inputs - features) // 6,
        sh_degrees=round(directions**0.5),
        table_size=shape("texture.table")[1] if "texture.table" in state else 256,
    )
    for head in HEADS.values():
        first = state.get(f"texture.{head}.layers.0.bias")
        if first is not None and (own := (len(first), depth(f"texture.{head}"))) != heads.size(head):
            setattr(heads, head, own)
    light = LightSettings(resolution=shape(BASE)[1])
    return {"geometry": asdict(geometry), "heads": asdict(heads), "light": asdict(light)}


def _check(state: Mapping[str, Tensor], field: RiseSDF) -> None:
    expected = {key: tuple(value.shape) for key, value in field.state_dict().items()}
    variance = expected.pop("surface.deviation.variance")
    if require_weight(state, "surface.deviation.variance", MODEL).numel() != 1:
        raise UserError(f"this file does not hold a {MODEL} model: its variance is not one number, but {variance}")
    require_complete(state, expected, MODEL)


def _describe(settings: Mapping[str, Any]) -> str:
    grid, light = settings["geometry"]["grid"], settings["light"]
    return f"{MODEL}, {grid['num_levels']} levels, light of {light['resolution']} texels a side"
