"""A user's error under torchrun: one sentence for all processes, in place of torchrun's report of some 40 lines.

A worker leaves its sentence in the file that torchrun keeps for the errors of each worker. torchrun's own process is
reached by an entry point: it imports the rendezvous handlers that installed packages offer (``torchrun.handlers``).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

_SENTENCE = "user_error"


def rank() -> int:
    """The number of this process among those of its job, whoever started them; 0 where it is alone."""
    for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def tell(sentence: str) -> bool:
    """In a worker: leaves a sentence for torchrun to print. False where no torchrun waits for it."""
    path = _error_file()
    if path is None:
        return False
    details = {_SENTENCE: sentence, "py_callstack": sentence, "timestamp": str(int(time.time()))}
    path.write_text(json.dumps({"message": {"message": sentence, "extraInfo": details}}))
    return True


def told() -> bool:
    """In a worker: whether one of the workers of this machine has left a sentence."""
    path = _error_file()
    return path is not None and any(_sentence(_content(file)) for file in path.parents[1].glob("*/error.json"))


def handler() -> Callable:
    """In torchrun's process: makes it print what a worker left, and nothing after that.

    Returns:
        What the entry point must give, a maker of rendezvous handlers: torchrun's default one.
    """
    from torch.distributed.elastic.rendezvous.registry import _create_c10d_handler

    sys.excepthook = _report
    # "no error file defined for parent": an error that is none, about the file of `tell`.
    logging.getLogger("torch.distributed.elastic.multiprocessing.errors.error_handler").setLevel(logging.CRITICAL)
    return _create_c10d_handler


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    failures = sorted(error.failures.values(), key=lambda f: f.timestamp) if isinstance(error, ChildFailedError) else []
    sentences = [sentence for failure in failures if (sentence := _sentence(failure.error_file_data))]
    if sentences:
        sys.stderr.write(f"{sentences[0]}\n")
    else:
        sys.__excepthook__(kind, error, trace)


def _error_file() -> Path | None:
    """ATTEMPT/LOCAL_RANK/error.json; None without torchrun, or where it keeps no logs."""
    name = os.environ.get("TORCHELASTIC_ERROR_FILE", "")
    return Path(name) if name.endswith(".json") else None


def _sentence(report: Any) -> str | None:
    """What `tell` left, of the content of an error file."""
    try:
        return report["message"]["extraInfo"].get(_SENTENCE)
    except (LookupError, TypeError, AttributeError):  # written by torch or by nobody
        return None


def _content(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except ValueError:  # not yet whole
        return None
