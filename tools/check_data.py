"""Look at the data of a config: what is wrong with them, statistics, and a sheet of labelled samples."""

import _environment  # noqa: F401

from perception.commands import run_tool

if __name__ == "__main__":
    run_tool("check-data")
