"""The command that compares two images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from ocitool.cli.inspection import image_in
from ocitool.cli.options import format_option, platform_option, with_session

if TYPE_CHECKING:
    from ocitool.differing import Difference
    from ocitool.locations import Session

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


@click.command(short_help="Say what differs between two images.")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@platform_option
@click.option("--times", is_flag=True, help="Count files of which only the time differs.")
@format_option
@with_session
def diff(
    session: Session, first: str, second: str, *, platform: str | None, times: bool, output: str
) -> None:
    """Say what differs between two images: layers, configuration and files.

    Nothing is unpacked to disk, and nothing is kept.
    """
    from ocitool import console
    from ocitool.differing import difference

    images = image_in(session, first, platform), image_in(session, second, platform)
    found = difference(*images, times=times)
    if output == "json":
        console.result_json(_document(found))
    else:
        for line in _lines(found):
            console.result(line)


def _lines(found: Difference) -> list[str]:
    lines = [f"- layer {diff_id}" for diff_id in found.removed_layers]
    lines += [f"+ layer {diff_id}" for diff_id in found.added_layers]
    lines += [f"~ config {key}: {one!r} -> {other!r}" for key, (one, other) in found.config.items()]
    for change in found.files:
        fields = f" ({', '.join(change.fields)})" if change.fields else ""
        lines.append(f"{_SIGNS[change.how]} /{os.fsdecode(change.path)}{fields}")
    return lines


def _document(found: Difference) -> dict[str, Any]:
    return {
        "layers": {
            "shared": [str(diff_id) for diff_id in found.shared],
            "removed": [str(diff_id) for diff_id in found.removed_layers],
            "added": [str(diff_id) for diff_id in found.added_layers],
        },
        "config": {key: {"from": one, "to": other} for key, (one, other) in found.config.items()},
        "files": [
            {"how": change.how, "path": "/" + os.fsdecode(change.path), "fields": list(change.fields)}
            for change in found.files
        ],
    }


COMMANDS = (diff,)
