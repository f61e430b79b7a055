"""Translate a checkpoint between its authors' layout and ours."""

import _environment  # noqa: F401

from perception.commands import run_tool

if __name__ == "__main__":
    run_tool("convert")
