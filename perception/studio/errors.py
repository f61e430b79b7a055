"""Errors that end an `ns-` command with one sentence instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from perception.engine.errors import UserError


class SceneError(UserError, SystemExit):
    """Something about the scene or the command that the user can put right; the message is one sentence that says how.

    nerfstudio's commands do not catch errors. As a :class:`SystemExit` this one ends them with the sentence on the
    error stream and exit status 1.
    """

    def __init__(self, message: str):
        super().__init__(message)
        self.code = f"error: {message}"


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turns a :class:`UserError` and an error of the file system raised inside into a :class:`SceneError`."""
    try:
        yield
    except SceneError:
        raise
    except UserError as error:
        raise SceneError(str(error)) from error
    except OSError as error:
        if error.strerror is None:  # not of the file system, whose sentences would say nothing
            raise
        raise SceneError(f"{error.strerror}: {error.filename}" if error.filename else error.strerror) from error
