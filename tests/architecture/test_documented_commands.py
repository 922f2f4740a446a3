"""The documents show command lines that can be read, and name files that are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from ocitool.cli.group import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"(?:^|\| *|\$\(|&& *|[$#-] |run: )ocitool ([^\n|;&>)]*)", re.MULTILINE)


def shown(page: Path) -> list[str]:
    """The command lines in a page's blocks, after `ocitool`."""
    return [line for block in _BLOCK.findall(page.read_text()) for line in _COMMAND.findall(block)]


def read(line: str) -> None:
    """Read a command line as the program does, but for whether its files are there."""
    words = shlex.split(re.sub(r"\$\{\{.*?\}\}", "1", line))
    command: click.Command = cli
    context = click.Context(command)
    while True:
        _, words, _ = command.make_parser(context).parse_args(words)
        if not isinstance(command, click.Group):
            return
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = (
            found,
            click.Context(found, parent=context, info_name=name, **found.context_settings),
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_that_a_document_shows_can_be_read(page: Path) -> None:
    for line in shown(page):
        try:
            read(line)
        except click.UsageError as error:
            pytest.fail(f"{page.name}: ocitool {line}: {error.format_message()}")


def test_many_command_lines_are_shown() -> None:
    assert sum(len(shown(page)) for page in PAGES) > 60


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_document_links_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
