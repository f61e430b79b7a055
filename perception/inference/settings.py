"""What decides a run's results, as it is kept in OUT/run.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from perception.engine.checkpoint import checkpoint_file
from perception.inference.kinds import Kind


def run_settings(
    config: str, cfg: Config, checkpoint: Path, folder: Path, patterns: Sequence[str], kind: Kind
) -> dict[str, Any]:
    """JSON values; the config and the checkpoint count by what they contain.

    Raises:
        CheckpointError: there is no such checkpoint.
        UserError: the kind cannot use the config.
    """
    text = json.dumps(kind.identity(cfg), sort_keys=True, default=_named)
    return {
        "config": config,
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": _sha256(checkpoint_file(checkpoint)),
        "folder": str(folder.resolve()),
        "patterns": list(patterns),
        **kind.settings(),
    }


def _named(value: Any) -> str:
    """A config's value that is not JSON: a class or function by its name, anything else by its text."""
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
