"""The examples in docstrings are right, and there are some where they teach."""

import doctest
import importlib

import numpy as np
import pytest
import torch

from tests.conftest import REPOSITORY

MODULES = sorted(
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for package in ("perception", "projects")
    for path in (REPOSITORY / package).rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    given = {"np": np, "torch": torch}
    results = doctest.testmod(importlib.import_module(name), extraglobs=given, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 0
    assert results.failed == 0


def test_shared_packages_have_examples():
    packages = {".".join(name.split(".")[:2]) for name in MODULES}
    assert packages >= {
        f"perception.{package}" for package in ("ops", "layers", "geometry", "radiance", "datasets", "evaluation")
    }
