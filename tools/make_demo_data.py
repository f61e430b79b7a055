"""Make the built-in synthetic data sets: small, with exact ground truth, in the formats of real ones."""

import _environment  # noqa: F401

from perception.commands import run_tool

if __name__ == "__main__":
    run_tool("make-data")
