"""What a run shows on the screen, of all that it writes to its log file."""

from __future__ import annotations

import logging

# How the messages begin that describe the set-up in hundreds of lines, or that speak to MMEngine's own developers.
_SETUP = (
    "\n" + "-" * 60 + "\nSystem environment:",
    "Config:\n",
    "Hooks will be executed in the following order:",
    "paramwise_options -- ",
    "Distributed training is not used, all SyncBatchNorm",
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)


def hide_setup(logger: logging.Logger) -> None:
    """Keeps messages about the set-up (environment, config, hooks, options of parameters) out of the console.

    Args:
        logger: handlers of it that write to files are left as they are.
    """
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(_is_for_the_screen)


def _is_for_the_screen(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_SETUP)
