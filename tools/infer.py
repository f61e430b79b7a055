"""Run a model over a folder: predictions as files, and pictures of them."""

import _environment  # noqa: F401

from perception.commands import run_tool

if __name__ == "__main__":
    run_tool("infer")
