"""What names of images meant: remembered while the layout's index is the very same file, and no longer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ocitool import remembered
from ocitool.remembered import Image, Question, seen

IMAGE = Image("sha256:" + "1" * 64, "linux/amd64", ("sh", "-c"), ("true",), ("/data",))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index that has been as it is for long enough, because the clock has gone on."""
    path = tmp_path / "layout" / "index.json"
    path.parent.mkdir()
    path.write_text("{}")
    now = time.time_ns
    monkeypatch.setattr("ocitool.remembered.time.time_ns", lambda: now() + 60_000_000_000)
    return path


def remember(tmp_path: Path, index: Path, question: Question, image: Image = IMAGE) -> None:
    question.remember(str(tmp_path), str(index), seen(str(index)), image)


def ask(tmp_path: Path, question: Question) -> dict[str, object] | None:
    found = question.remembered(str(tmp_path))
    return vars(found) if found else None


def test_an_answer_is_found_again_as_it_was(tmp_path: Path, index: Path) -> None:
    question = Question("alpine", "/store", "")
    assert ask(tmp_path, question) is None
    remember(tmp_path, index, question)
    assert ask(tmp_path, question) == vars(IMAGE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layout", "names.json"]


def test_another_index_of_the_same_size_and_time_is_another_index(tmp_path: Path, index: Path) -> None:
    question = Question("alpine", "/store", "")
    remember(tmp_path, index, question)
    info, new = index.stat(), index.with_name("new")
    new.write_text("[]")
    os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns))
    new.replace(index)
    assert ask(tmp_path, question) is None


def test_an_index_that_is_written_in_place_with_its_time_set_back_is_noticed(
    tmp_path: Path, index: Path
) -> None:
    question = Question("alpine", "/store", "")
    remember(tmp_path, index, question)
    info = index.stat()
    time.sleep(0.02)  # longer than a tick of the file system's clock
    index.write_text("[]")
    os.utime(index, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert ask(tmp_path, question) is None


def test_an_index_that_changed_while_the_answer_was_looked_for_teaches_nothing(
    tmp_path: Path, index: Path
) -> None:
    question, before = Question("alpine", "/store", ""), seen(str(index))
    new = index.with_name("new")
    new.write_text("{}")
    new.replace(index)
    question.remember(str(tmp_path), str(index), before, IMAGE)
    assert ask(tmp_path, question) is None


def test_an_index_that_has_just_changed_teaches_nothing_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index.json"
    index.write_text("{}")
    changed = index.stat().st_ctime_ns
    monkeypatch.setattr("ocitool.remembered.time.time_ns", lambda: changed + 999_999_999)
    assert seen(str(index)) is None
    remember(tmp_path, index, Question("alpine", "/store", ""))
    assert list(tmp_path.iterdir()) == [index]


@pytest.mark.parametrize(
    ("location", "store", "platform"),
    [("debian", "/store", ""), ("alpine", "/other", ""), ("alpine", "/store", "linux/arm64")],
)
def test_another_question_has_another_answer(
    tmp_path: Path, index: Path, location: str, store: str, platform: str
) -> None:
    remember(tmp_path, index, Question("alpine", "/store", ""))
    assert ask(tmp_path, Question(location, store, platform)) is None


def test_the_default_platform_is_part_of_the_question(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(tmp_path, index, Question("alpine", "/store", ""))
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/arm64")
    assert ask(tmp_path, Question("alpine", "/store", "")) is None


@pytest.mark.parametrize("location", ["./layout", "../layout", "oci:layout", "oci:./layout:1"])
def test_a_path_from_here_means_something_else_elsewhere(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    remember(tmp_path, index, Question(location, "/store", ""))
    assert ask(tmp_path, Question(location, "/store", "")) == vars(IMAGE)
    monkeypatch.chdir(tmp_path)
    assert ask(tmp_path, Question(location, "/store", "")) is None


def test_the_latest_answers_are_kept_and_each_question_once(tmp_path: Path, index: Path) -> None:
    for number in range(70):
        remember(tmp_path, index, Question(f"image{number}", "/store", ""))
    other = Image("sha256:" + "2" * 64, "linux/amd64", (), (), ())
    remember(tmp_path, index, Question("image69", "/store", ""), other)
    assert ask(tmp_path, Question("image69", "/store", "")) == vars(other)
    assert ask(tmp_path, Question("image6", "/store", "")) == vars(IMAGE)
    assert ask(tmp_path, Question("image5", "/store", "")) is None
    assert (tmp_path / "names.json").read_text().count('"image69"') == 1


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[1]", '[{"asked": 1}]', '[{"asked": ["x"], "path": 1}]', "\xff"]
)
def test_a_file_that_is_not_ours_is_no_answer_and_is_replaced(tmp_path: Path, index: Path, text: str) -> None:
    (tmp_path / "names.json").write_text(text, encoding="latin-1")
    question = Question("alpine", "/store", "")
    assert ask(tmp_path, question) is None
    remember(tmp_path, index, question)
    assert ask(tmp_path, question) == vars(IMAGE)


def test_what_is_not_unpacked_any_more_is_forgotten_and_the_file_goes_with_the_last_answer(
    tmp_path: Path, index: Path
) -> None:
    other = Image("sha256:" + "2" * 64, "linux/amd64", (), (), ())
    remember(tmp_path, index, Question("one", "/store", ""))
    remember(tmp_path, index, Question("two", "/store", ""), other)
    remembered.forget(str(tmp_path), lambda digest: digest == other.digest)
    assert ask(tmp_path, Question("one", "/store", "")) is None
    assert ask(tmp_path, Question("two", "/store", "")) == vars(other)
    for _ in range(2):
        remembered.forget(str(tmp_path), lambda _: False)
        assert [path.name for path in tmp_path.iterdir()] == ["layout"]


def test_where_nothing_can_be_written_nothing_is_remembered(tmp_path: Path, index: Path) -> None:
    (tmp_path / "file").touch()
    question = Question("alpine", "/store", "")
    question.remember(str(tmp_path / "file" / "deep"), str(index), remembered.seen(str(index)), IMAGE)
    assert question.remembered(str(tmp_path / "file" / "deep")) is None
