"""Commands that mirror what a file describes: check it, plan, apply."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ocitool.cli.options import DIRECTORY, FILE, format_option, to_be_written, with_session, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ocitool.cli.mirrorstores import MirrorStores
    from ocitool.locations import Session
    from ocitool.mirror import Job, MirrorFile, Plan, Run
    from ocitool.mirror.items import Failure
    from ocitool.mirror.pruning import Doomed

_INPUT = click.Path(path_type=Path, dir_okay=False, exists=True)


class _Mirror(click.Group):
    """`mirror FILE` is `mirror apply FILE`, with the options of that before FILE and behind it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            args = ["apply", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_Mirror, context_settings={"ignore_unknown_options": True})
def mirror() -> None:
    """Mirror images as a file says. `mirror FILE` is `mirror apply FILE`.

    FILE is a mirror file of ocitool, a skopeo sync YAML (with --to), or a regsync.yml.
    """


def _job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.argument("file", type=_INPUT),
        click.option(
            "--to", default="", metavar="TEMPLATE", help="Where images go, if FILE does not say so."
        ),
        click.option(
            "--shard", metavar="I/N", help="Do this part; auto: what Kubernetes or the CI system says."
        ),
        click.option("--jobs", type=click.IntRange(1, 64), help="Images on their way at once. [4]"),
        click.option(
            "--pulls",
            multiple=True,
            metavar="HOST=N/TIME",
            help="Read at most so many manifests: docker.io=80/6h.",
        ),
        click.option("--limit-rate", metavar="RATE", help="Read at most so many bytes a second: 20M."),
        click.option(
            "--state",
            type=DIRECTORY,
            help="Keep counts and manifests there. [$XDG_STATE_HOME/ocitool/mirror]",
        ),
        click.option(
            "--locked", type=_INPUT, help="Replay this plan; moved tags are reported, not followed."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@mirror.command()
@click.argument("file", type=_INPUT)
@click.option("--to", default="", metavar="TEMPLATE", help="Where images go, if FILE does not say so.")
def check(*, file: Path, to: str) -> None:
    """Check a mirror file; no registry is asked."""
    from ocitool import console

    parsed = _parsed(file.read_bytes(), file, to)
    count = len(parsed.rules)
    console.result(f"{file}: {count} {'rule' if count == 1 else 'rules'}, no problems")


@mirror.command()
@_job_options
@click.option(
    "-o",
    "--lock",
    type=FILE,
    callback=to_be_written,
    help="Write the plan there, to be committed and replayed.",
)
@click.option("--no-pulls", is_flag=True, help="Send HEAD requests only; bytes are then unknown.")
@format_option
@with_session
def plan(session: Session, *, file: Path, lock: Path | None, **options: Any) -> int:
    """Say what a run would move and cost, without moving anything."""
    from ocitool.mirror import lockfile

    raw = file.read_bytes()
    with _job(session, raw, file, options, may_pull=not options["no_pulls"]) as (job, stores):
        planned = job.plan()
        if lock:
            write_whole(lock, lockfile.dump(planned, raw))
        _show_plan(planned, raw, options["output"])
        _show_pulls(job, stores)
    return 3 if planned.failures else 0


@mirror.command()
@_job_options
@click.option("--dry-run", is_flag=True, help="Only say what would be done, as `mirror plan`.")
@click.option("--prune", is_flag=True, help="Delete tags that no rule wants any more.")
@click.option("--max-delete", metavar="N|P%", help="Refuse to prune more tags than that. [10%]")
@click.option(
    "--report", multiple=True, metavar="FORMAT=FILE", help="Write a report: text=, json= or junit=FILE."
)
@format_option
@with_session
def apply(session: Session, *, file: Path, dry_run: bool, prune: bool, **options: Any) -> int:
    """Copy what is missing. One image that fails does not stop the others; the exit code is then 3."""
    reports = [_report(text) for text in options["report"]]  # before anything is done
    raw = file.read_bytes()
    with _job(session, raw, file, options) as (job, stores):
        planned = job.plan()
        if dry_run:
            _show_plan(planned, raw, options["output"])
            if prune and options["output"] == "text":
                _show_pruned("would delete", _planned_prune(job))
            return 3 if planned.failures else 0
        try:
            run = job.apply(planned)
        except BaseException:
            # Whoever looks for a report of this run does not take that of the last one for it.
            _write_reports(reports, job.so_far(planned), [])
            raise
        gone: list[Doomed] = []
        failures: list[Failure] = []
        try:
            if prune:
                gone, failures = _prune(job, stores)
        finally:
            run = replace(run, failures=(*run.failures, *failures))
            _show_run(run, gone, options["output"])
            _show_pulls(job, stores)
            _write_reports(reports, run, gone)
    return 3 if run.failed else 0


def _parsed(raw: bytes, file: Path, to: str) -> MirrorFile:
    from ocitool import console
    from ocitool.mirror import parse

    parsed = parse(raw, str(file), to=to)
    for note in parsed.notes:
        console.say(f"{file}: {note}")
    return parsed


@contextmanager
def _job(
    session: Session, raw: bytes, file: Path, options: dict[str, Any], *, may_pull: bool = True
) -> Iterator[tuple[Job, MirrorStores]]:
    """What a command's options describe."""
    from ocitool import places
    from ocitool.cli.mirrorstores import MirrorStores
    from ocitool.mirror import Job, Settings, Shard, lockfile

    if session.config.username or session.config.registry_token:
        # It would be sent to the sources and to the destinations alike.
        raise click.UsageError(
            "--username and --registry-token do not say for which registry; name credentials in the mirror"
            " file, or use `ocitool login`"
        )
    parsed = _parsed(raw, file, options["to"])
    lock = None
    if options["locked"]:
        lock = lockfile.load(options["locked"].read_bytes(), str(options["locked"]))
        lock.check(raw)
    shard = Shard()
    if options["shard"]:
        with _option("--shard"):
            shard = Shard.parse(options["shard"], os.environ)
    settings = Settings(
        lock=lock,
        shard=shard,
        state=options["state"] or Path(places.mirror_state()),
        may_pull=may_pull,
    )
    parsed = _limited(parsed, options)
    with MirrorStores(session, parsed) as stores:
        yield Job(parsed, stores.stores, settings, on_event=session.on_event), stores


def _limited(parsed: MirrorFile, options: dict[str, Any]) -> MirrorFile:
    """The file, with what the command line says of limits, which comes first."""
    from ocitool.mirror import PullLimit
    from ocitool.mirror.budgets import rate
    from ocitool.mirror.config import share

    changes: dict[str, Any] = {}
    if options["jobs"]:
        changes["jobs"] = options["jobs"]
    if options["limit_rate"]:
        with _option("--limit-rate"):
            changes["rate"] = rate(options["limit_rate"])
    if options.get("max_delete"):
        with _option("--max-delete"):
            changes["max_delete"] = share(options["max_delete"])
    pulls = dict(parsed.limits.pulls)
    for text in options["pulls"]:
        host, equals, limit = text.partition("=")
        if not equals:
            raise click.BadParameter(
                f"{text!r:.60} is not HOST=N/TIME, as docker.io=80/6h", param_hint="--pulls"
            )
        with _option("--pulls"):
            pulls[host] = PullLimit.parse(limit)
    return replace(parsed, limits=replace(parsed.limits, pulls=pulls, **changes))


@contextmanager
def _option(name: str) -> Iterator[None]:
    """Say which option it was whose value is not understood."""
    from ocitool.errors import InvalidReference

    try:
        yield
    except InvalidReference as error:
        raise click.BadParameter(error.message, param_hint=name) from error


def _planned_prune(job: Job) -> list[Doomed]:
    planned = job.plan_prune()
    planned.check(job.limits.max_delete)
    return list(planned.doomed)


def _prune(job: Job, stores: MirrorStores) -> tuple[list[Doomed], list[Failure]]:
    from ocitool.mirror import pruning

    planned = job.plan_prune()
    planned.check(job.limits.max_delete)
    gone, failures = pruning.prune(planned, stores.stores)
    return gone, [*planned.failures, *failures]


def _show_plan(planned: Plan, raw: bytes, output: str) -> None:
    from ocitool import console
    from ocitool.mirror import lockfile, reports

    if output == "json":
        console.result_bytes(lockfile.dump(planned, raw))
        return
    for line in reports.plan_lines(planned):
        console.result(line)


def _show_run(run: Run, gone: list[Doomed], output: str) -> None:
    from ocitool import console
    from ocitool.mirror import reports

    if output == "json":
        console.result_json(reports.as_json(run, gone))
        return
    for line in reports.lines(run):
        console.result(line)
    _show_pruned("deleted", gone)


def _show_pruned(what: str, doomed: list[Doomed]) -> None:
    from ocitool import console

    for name in doomed:
        console.result(f"{what} {name.place}:{name.name}")


def _show_pulls(job: Job, stores: MirrorStores) -> None:
    """Say what the run has cost so far, and what registries say of the rest."""
    from ocitool import console

    for host in sorted({item.source.registry for item in job.wanted.items}):
        pulls, budget = job.meter.pulls.get(host), job.meter.left(host)
        parts = [f"{pulls} manifests read" if pulls else "", stores.left(host)]
        parts.append("" if budget is None else f"{budget} left of the budget")
        if said := ", ".join(part for part in parts if part):
            console.say(f"{host}: {said}")


def _report(text: str) -> tuple[str, Path]:
    kind, equals, path = text.partition("=")
    if not equals or not path or kind not in {"text", "json", "junit"}:
        raise click.BadParameter(f"{text!r} is not text=FILE, json=FILE or junit=FILE", param_hint="--report")
    to_be_written(None, None, Path(path))
    return kind, Path(path)


def _write_reports(wanted: list[tuple[str, Path]], run: Run, gone: list[Doomed]) -> None:
    from ocitool.mirror import reports

    for kind, path in wanted:
        write_whole(path, reports.written(kind, run, gone).encode())


COMMANDS = (mirror,)
