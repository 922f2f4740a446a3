"""The error tree: every error survives being noted, copied and sent, with its code."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from ocitool import errors
from ocitool.errors import IntegrityError, OciError, RegistryError, RunError, Unauthorized, UnsafeContent

TREE = [item for item in vars(errors).values() if inspect.isclass(item) and issubclass(item, OciError)]


@pytest.mark.parametrize("kind", TREE)
def test_every_error_has_a_message_a_hint_and_a_code(kind: type[OciError]) -> None:
    error = kind("it went wrong", hint="mend it")
    assert str(error) == error.message == "it went wrong"
    assert error.hint == "mend it"
    assert kind("it went wrong").hint == ""
    assert 0 < error.exit_code < 126


@pytest.mark.parametrize("kind", TREE)
def test_every_error_survives_a_process_boundary(kind: type[OciError]) -> None:
    error = kind("it went wrong", hint="mend it")
    error.add_note("while testing")
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is kind
        assert vars(again) == vars(error)
        assert again.__notes__ == ["while testing"]


@pytest.mark.parametrize("kind", TREE)
def test_an_error_of_a_module_s_own_counts_as_what_it_is_made_of(kind: type[OciError]) -> None:
    own = type("Own", (kind,), {"__module__": "elsewhere"})
    assert own("it went wrong").kind == kind("it went wrong").kind == kind.__name__


def test_what_only_some_errors_know() -> None:
    refused = RegistryError("no", method="GET", url="https://r/v2/", status=500, codes=("X",), temporary=True)
    assert (refused.method, refused.url, refused.status) == ("GET", "https://r/v2/", 500)
    assert (refused.codes, refused.temporary) == (("X",), True)
    assert not Unauthorized("no").temporary
    wrong = IntegrityError("no", expected="a", actual="b")
    assert (wrong.expected, wrong.actual) == ("a", "b")


def test_a_run_error_has_the_code_that_engines_use() -> None:
    assert RunError("no").exit_code == 125
    assert RunError("no", exit_code=127).exit_code == 127
    assert RunError.exit_code == 125


def test_who_catches_invalid_content_catches_unsafe_content_too() -> None:
    assert issubclass(UnsafeContent, errors.InvalidContent)
    assert issubclass(Unauthorized, RegistryError)
    assert issubclass(errors.Unreachable, RegistryError)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = errors.__doc__ or ""
    for kind in TREE:
        line = next(line for line in drawn.splitlines() if f"{kind.__name__} " in line)
        assert str(kind.exit_code) in line.split()
        parent = kind.__bases__[0].__name__
        assert parent == "Exception" or parent in drawn
