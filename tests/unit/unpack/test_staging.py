"""A directory appears under its name when it is complete, whoever else wants that name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from ocitool.errors import Conflict
from ocitool.unpack.staging import staged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_of_several_that_make_the_same_at_once_one_wins_and_the_others_are_told(tmp_path: Path) -> None:
    together = Barrier(4)

    def make(target: Path) -> bool:
        try:
            with staged(target, sync=False) as private:
                (private / "file").touch()
                together.wait(60)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        for turn in range(50):
            target = tmp_path / str(turn)
            assert sum(pool.map(make, [target] * 4)) == 1
            assert (target / "file").exists()
    assert len(list(tmp_path.iterdir())) == 50


def _file(target: Path) -> None:
    target.touch()


def _directory(target: Path) -> None:
    target.mkdir()


def _link_to_nothing(target: Path) -> None:
    target.symlink_to("nothing")


@pytest.mark.parametrize("take", [_file, _directory, _link_to_nothing])
def test_a_name_that_somebody_took_in_the_meantime_stays_theirs(
    tmp_path: Path, take: Callable[[Path], None]
) -> None:
    target = tmp_path / "target"
    with pytest.raises(Conflict, match="exists"), staged(target, sync=False):
        take(target)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
