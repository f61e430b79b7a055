"""How the data of the demos' recipes are made."""

from __future__ import annotations

from pathlib import Path

_MAKE, _SPLIT = "python tools/make_demo_data.py", "python tools/dataset_converters/split_pyramid.py"
_BRIDGES = f"{_MAKE} bridges --out data/demo/bridges --num-train 64 --num-val 12 --min-size 1000 --max-size 2000"
COMMANDS = {
    "shapes": (f"{_MAKE} shapes --out data/demo/shapes --num-train 1000",),
    "regions": (f"{_MAKE} regions --out data/demo/regions --num-train 1000 --num-val 100",),
    "harbours": (f"{_MAKE} harbours --out data/demo/harbours --num-train 400",),
    "harbours_coco": (f"{_MAKE} harbours --format coco --out data/demo/harbours_coco --num-train 400 --num-val 100",),
    "bridges": (_BRIDGES,),
    "bridge_patches": (
        _BRIDGES,
        *(
            f"{_SPLIT} data/demo/bridges/{split} --out data/demo/bridge_patches/{split} --size 256 --gap 50 "
            f"--levels all --context-threshold {threshold}"
            for split, threshold in (("train", 1), ("val", 0))
        ),
    ),
    "cities": (f"{_MAKE} cities --out data/demo/cities --train-cameras 400",),
    "driving": (
        f"{_MAKE} driving --out data/demo/driving --num-train 200 --num-val 16 --frames 3 --width 256 --samples 1 "
        "--columns 240 --crowd 2",
    ),
    "tracking": (
        f"{_MAKE} driving --layout kitti-tracking --out data/demo/tracking --crowd 24 --num-train 16 --num-val 4 "
        "--columns 1440 --width 192 --samples 1 --rate 30",
    ),
}
"""By folder in `data/demo`: as the demos' pages have them."""


def how_to_make(root: str | Path) -> str | None:
    """The commands, in one line of a shell, that make the folder of a data set; None where it is not of a demo."""
    parts = Path(root).parts
    commands = COMMANDS.get(parts[2]) if parts[:2] == ("data", "demo") and len(parts) > 2 else None
    return commands and " && ".join(commands)
