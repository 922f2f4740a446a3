"""The command line in this process, with a store of its own."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from support.command import Cli, Done
from support.fixtures import layout

from ocitool.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cli]:
    monkeypatch.setenv("OCITOOL_STORE", str(tmp_path / "store"))
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str | Path, code: int = 0) -> Done:
        capfd.readouterr()
        exited = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert exited == code, err
        assert "Traceback" not in err or "--debug" in arguments
        return Done(exited, out, err)

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="session")
def images() -> str:
    """The fixture images, as the beginning of a location."""
    return f"oci:{layout()}"
