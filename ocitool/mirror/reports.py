"""What a run did, for people (text), programs (JSON) and CI systems (JUnit)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ocitool.mirror.applying import notes
from ocitool.mirror.lockfile import totals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocitool.errors import OciError
    from ocitool.mirror.applying import Result, Run
    from ocitool.mirror.items import Failure
    from ocitool.mirror.plans import Plan
    from ocitool.mirror.pruning import Doomed


def plan_lines(plan: Plan) -> Iterable[str]:
    """What would happen to each image, then what that costs."""
    for image in plan.images:
        work = image.work
        if image.unchanged:
            yield f"unchanged  {image.target}"
        elif not work.known:
            yield f"copy       {image.target} from {image.source}: not read, so the bytes are not known"
        else:
            yield (
                f"copy       {image.target} from {image.source}: {len(work.manifests)} manifests,"
                f" {len(work.blobs)} blobs, {work.size} bytes, {len(work.mounts)} mounts"
            )
        yield from (f"           {note}" for note in notes(image))
    for failure in plan.failures:
        yield f"failed     {failure.what}: {_reason(failure.error)}"
    costs = totals(plan)
    least = "at least " if "atLeast" in costs else ""
    for host, cost in costs["sources"].items():
        yield f"from {host}: {least}{cost['bytes']} bytes in {cost['blobs']} blobs, {cost['pulls']} pulls"
    yield f"{costs['images']} images, {costs['unchanged']} of them unchanged"


def summary(run: Run) -> str:
    """The run in one line."""
    if run.idle:
        pulls = sum(run.pulls.values())
        cost = f"{pulls} manifests were read" if pulls else "nothing was read but names and digests"
        return f"all {len(run.results)} images are unchanged; {cost}"
    count = dict.fromkeys(("copied", "unchanged", "failed"), 0)
    for result in run.results:
        count[result.outcome] += 1
    moved = sum(result.moved for result in run.results)
    mounted = sum(result.mounted for result in run.results)
    parts = [
        f"{count['copied']} copied ({moved} bytes, {mounted} blobs mounted)",
        f"{count['unchanged']} unchanged",
    ]
    if run.failed:
        parts.append(f"{run.failed} failed")
    parts += [f"{pulls} pulls from {host}" for host, pulls in run.pulls.items()]
    return ", ".join(parts)


def lines(run: Run) -> Iterable[str]:
    """What happened to each image, then the summary."""
    for result in run.results:
        if result.outcome == "failed":
            yield f"failed     {result.image.target}: {_reason(result.error)}"
        elif result.outcome == "copied":
            yield f"copied     {result.image.target}@{result.digest} from {result.image.source}"
        for note in result.notes:
            yield f"           {note}"
    for failure in run.failures:
        yield f"failed     {failure.what}: {_reason(failure.error)}"
    yield summary(run)


def _reason(error: OciError | None) -> str:
    if error is None:
        return ""
    return f"{error.message} ({error.hint})" if error.hint else error.message


def as_json(run: Run, pruned: Iterable[Doomed] = ()) -> dict[str, Any]:
    """The run as data; docs/reference/mirror-file.md has the fields."""
    return {
        "version": 1,
        "summary": summary(run),
        "images": [_image(result) for result in run.results],
        "failures": [_failure(failure) for failure in run.failures],
        "pulls": run.pulls,
        "pruned": [f"{doomed.place}:{doomed.name}" for doomed in pruned],
    }


def _image(result: Result) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "source": str(result.image.source),
        "target": str(result.image.target),
        "outcome": result.outcome,
    }
    if result.digest:
        fields["digest"] = str(result.digest)
    if result.outcome == "copied":
        fields |= {"bytes": result.moved, "mounted": result.mounted}
    if result.notes:
        fields["notes"] = list(result.notes)
    if result.error:
        fields["error"] = _error(result.error)
    return fields


def _failure(failure: Failure) -> dict[str, Any]:
    return {"what": failure.what, "error": _error(failure.error)}


def _error(error: OciError) -> dict[str, Any]:
    fields: dict[str, Any] = {"message": error.message, "kind": error.kind, "code": error.exit_code}
    if error.hint:
        fields["hint"] = error.hint
    if notes := getattr(error, "__notes__", ()):
        fields["notes"] = list(notes)
    return fields


def junit(run: Run) -> str:
    """The run as a JUnit test suite: one case for each image, and one for each rule that failed."""
    cases = [_case(str(r.image.source.name), str(r.image.target), r.error) for r in run.results]
    cases += [_case("rules", failure.what, failure.error) for failure in run.failures]
    head = f'<testsuite name="mirror" tests="{len(cases)}" failures="{run.failed}" errors="0">'
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', head, *cases, "</testsuite>", ""])


def _case(group: str, name: str, error: OciError | None) -> str:
    from xml.sax.saxutils import escape

    opening = f"  <testcase classname={_attribute(group)} name={_attribute(name)}"
    if error is None:
        return opening + "/>"
    details = "\n".join([_reason(error), *getattr(error, "__notes__", ())])
    return (
        f"{opening}><failure type={_attribute(error.kind)} message={_attribute(error.message)}>"
        f"{escape(_legal(details))}</failure></testcase>"
    )


def _attribute(text: str) -> str:
    from xml.sax.saxutils import quoteattr

    return quoteattr(_legal(text))


def _legal(text: str) -> str:
    """Text without the characters that XML 1.0 can't hold, however they are written."""
    return "".join(
        char if char in "\t\n\r" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def written(kind: str, run: Run, pruned: Iterable[Doomed] = ()) -> str:
    """A report for a file: `text`, `json` or `junit`."""
    if kind == "json":
        return json.dumps(as_json(run, pruned), indent=2, ensure_ascii=False) + "\n"
    if kind == "junit":
        return junit(run)
    return "".join(f"{line}\n" for line in lines(run))
