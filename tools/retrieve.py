"""Look for panoramas in a gallery of satellite tiles, and say where in the best tile each was taken."""

import _environment  # noqa: F401

from perception.commands import run_tool

if __name__ == "__main__":
    run_tool("retrieve")
