"""Print a config with everything it inherits, or write it to one file."""

import _environment  # noqa: F401

from perception.commands import run_tool

if __name__ == "__main__":
    run_tool("print-config")
