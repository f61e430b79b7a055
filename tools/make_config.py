"""Write a config for your own data: it inherits a recipe, reads the classes from the data and sizes the heads."""

import _environment  # noqa: F401

from perception.commands import run_tool

if __name__ == "__main__":
    run_tool("make-config")
