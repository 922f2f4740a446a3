"""What the package promises to those who import it."""

from __future__ import annotations

import importlib
from importlib.metadata import version

import pytest
from support.imports import ROOT, modules_below

import ocitool

PACKAGES = [name for name in modules_below("ocitool") if (ROOT / name.replace(".", "/")).is_dir()]


def test_the_version_is_that_of_the_distribution() -> None:
    assert ocitool.__version__ == version("ocitool")


def test_types_are_shipped() -> None:
    assert (ROOT / "ocitool" / "py.typed").exists()


@pytest.mark.parametrize("name", PACKAGES)
def test_what_a_package_exports_is_there_once_and_in_order(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__doc__
    exported = list(getattr(package, "__all__", []))
    assert exported == sorted(
        set(exported), key=lambda item: (not item.isupper(), not item[:1].isupper(), item)
    )
    assert [item for item in exported if not hasattr(package, item)] == []
