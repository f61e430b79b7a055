"""Merge checkpoints of HBD-Net's stages, which were trained one after the other, into one of both branches."""

import _environment  # noqa: F401

from perception.commands import run_tool

if __name__ == "__main__":
    run_tool("merge-stages")
