"""Fields of checkpoints in DirectVoxGO's layout, which several released systems share, and back.

Such a checkpoint holds ``model_kwargs``, the arguments of the field's constructor, and ``model_state_dict``, its
tensors under the names that the fields here have as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.mpi import DirectMPIGO

GRIDS = ("density_type", "k0_type")
OURS = ("align_corners", "mask_counts_shift")
"""Arguments that the released constructors do not have."""


def released_field(
    model_kwargs: Mapping[str, Any], state: Mapping[str, Tensor], *, align_corners: bool = True
) -> DirectVoxGO | DirectMPIGO:
    """The field of a checkpoint: forward-facing where its tensors have planes.

    Args:
        model_kwargs: arguments that the file holds, also in NumPy's types.
        state: its tensors.
        align_corners: how the release reads its grids, which files do not say.

    Raises:
        ValueError: settings and tensors do not fit together, or are of a kind that is not known.
    """
    forward_facing = "act_shift.grid" in state
    read, make = (_mpi_kwargs, DirectMPIGO) if forward_facing else (voxel_kwargs, DirectVoxGO)
    try:
        _refuse_unknown(model_kwargs)
        box = [torch.as_tensor(model_kwargs[name], dtype=torch.float32).reshape(3) for name in ("xyz_min", "xyz_max")]
        field = make(*box, **read(model_kwargs), align_corners=align_corners)
        field.set_mask(state["mask_cache.mask"].bool())
        field.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(f"the checkpoint's settings and tensors do not fit: {reason}") from None
    return field


def voxel_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :class:`DirectVoxGO`, besides the box, that released ``model_kwargs`` stand for.

    Raises:
        KeyError: one that has no default is missing.
        TypeError, ValueError: one is not a number.
    """
    return _chosen(
        kwargs,
        {"num_voxels": int, "num_voxels_base": int, "alpha_init": float, "fast_color_thres": float},
        {"rgbnet_dim": 0, "rgbnet_direct": True, "rgbnet_depth": 3, "rgbnet_width": 128, "viewbase_pe": 4},
    )


def released_kwargs(field: DirectVoxGO | DirectMPIGO) -> dict[str, Any]:
    """The ``model_kwargs`` of a field, in plain numbers, lists and strings."""
    kwargs: dict[str, Any] = {name: value for name, value in field.settings().items() if name not in OURS}
    kwargs["xyz_min"], kwargs["xyz_max"] = field.xyz_min.tolist(), field.xyz_max.tolist()
    kwargs["voxel_size_ratio"] = float(field.voxel_size_ratio)
    kwargs |= dict.fromkeys(GRIDS, "DenseGrid")
    kwargs |= {"density_config": {}, "k0_config": {}}
    kwargs |= {"mask_cache_path": None, "mask_cache_thres": 1e-3}
    kwargs["mask_cache_world_size"] = list(field.mask_cache.mask.shape)
    if isinstance(field, DirectMPIGO):
        kwargs |= {"mode_type": "mlp", "dim_rend": 3}
    return kwargs


def _refuse_unknown(kwargs: Mapping[str, Any]) -> None:
    for name, known in {**dict.fromkeys(GRIDS, "DenseGrid"), "mode_type": "mlp"}.items():
        if (value := kwargs.get(name, known)) != known:
            raise ValueError(f"its {name} is {value}, and only {known} is known")


def _mpi_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return _chosen(
        kwargs,
        {"num_voxels": int, "mpi_depth": int, "fast_color_thres": float, "rgbnet_dim": int},
        {
            "rgbnet_depth": 3,
            "rgbnet_width": 64,
            "viewbase_pe": 0,
            "spatial_pe": 0,
            "act_type": "relu",
            "mask_counts_shift": True,
        },
    )


def _chosen(kwargs: Mapping[str, Any], needed: dict[str, type], others: dict[str, Any]) -> dict[str, Any]:
    """The arguments of these names in these types; others have a default, and the type of that."""
    values = {name: kind(kwargs[name]) for name, kind in needed.items()}
    return values | {name: type(default)(kwargs.get(name, default)) for name, default in others.items()}
