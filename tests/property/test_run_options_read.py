"""The options of `run`, read by the short reader and by the library: what the first one takes is the same."""

from __future__ import annotations

from typing import Any

import click
from hypothesis import example, given
from hypothesis import strategies as st

from ocitool.cli import runoptions
from ocitool.cli.group import cli

_RUN = cli.get_command(click.Context(cli), "run")
_SPELLINGS = [name for option in (*runoptions.OPTIONS, runoptions.QUIET) for name in option.names]
_LETTERS = "".join(name[1] for name in _SPELLINGS if len(name) == 2)
_VALUES = st.one_of(
    st.sampled_from(
        [
            "",
            "-",
            "--",
            "=",
            "a=b",
            "-e",
            "--rm",
            "7",
            "-1",
            " 7",
            "1_0",
            "٣",
            "auto",
            "true",
            "0",
            "host",
            "never",
            "Never",
        ]
    ),
    st.text(alphabet="ab=-:/ é", max_size=5),
)
_WORDS = st.one_of(
    st.sampled_from(_SPELLINGS),
    st.builds("{}={}".format, st.sampled_from(_SPELLINGS), _VALUES),
    st.builds("{}{}".format, st.sampled_from(_SPELLINGS), _VALUES),
    st.text(alphabet=_LETTERS, min_size=1, max_size=4).map("-{}".format),
    st.sampled_from(["--store", "--no-creds", "--help", "-h", "--nonsense", "--vol"]),
    _VALUES,
)


def _by_library(words: list[str]) -> dict[str, Any] | None:
    """The same values from click, less those of options that are not `run`'s own; None for an error."""
    try:
        assert _RUN is not None
        with _RUN.make_context("run", list(words), resilient_parsing=False) as context:
            values = context.params
    except (click.ClickException, click.exceptions.Exit):
        return None
    own = {option.attribute for option in runoptions.OPTIONS} | {"location", "command"}
    assert {name: value for name, value in values.items() if name not in own and value is not None} == {}
    return {name: values[name] for name in own}


@given(st.lists(_WORDS, max_size=8))
@example(["-it", "--rm", "image", "sh", "-c", "--rm"])
@example(["-eA=1", "-e=A", "-e", "--rm", "--name=x", "--name", "y", "image", "--", "true"])
@example(["--pids-limit", "7", "--pull", "never", "--network=", "image"])
@example(["-tm5m", "image"])
@example(
    ["-it", "--tty=false", "--rm=true", "-i=0", "--read-only=T", "-e", "--rm=false", "image", "--rm=false"]
)
@example(["-qt", "image"])
def test_what_the_short_reader_takes_is_what_the_library_reads(words: list[str]) -> None:
    values = runoptions.parse(words)
    assert values is None or values == _by_library(words)


@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                ["-it", "-i", "-t", "--rm", "--read-only", "--init", "--keep", "--rm=true", "-t=false"]
            ).map(lambda word: [word]),
            st.tuples(
                st.sampled_from(["-e", "-w", "--env", "--volume", "--tmpfs", "--name", "--network", "-m"]),
                st.text(alphabet="ab=:/", max_size=5),
            ).map(list),
        )
    ),
    st.lists(st.text(alphabet="ab-=", max_size=4)),
)
def test_the_short_reader_takes_every_plain_command_line(
    options: list[list[str]], command: list[str]
) -> None:
    words = [*(word for pair in options for word in pair), "image", *command]
    assert runoptions.parse(words) is not None
