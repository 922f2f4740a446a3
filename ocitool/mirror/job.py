"""One mirror file's work from end to end: expand, plan, apply, prune."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ocitool.errors import Conflict
from ocitool.events import OnEvent, ignore
from ocitool.mirror.applying import Applier, Run
from ocitool.mirror.budgets import PullBudget, TokenBucket
from ocitool.mirror.items import Listings, Wanted, expand
from ocitool.mirror.planning import Planner
from ocitool.mirror.pruning import PrunePlan, plan_prune
from ocitool.mirror.reading import ManifestCache, Meter
from ocitool.mirror.sharding import Shard

if TYPE_CHECKING:
    from pathlib import Path

    from ocitool.mirror.config import Limits, MirrorFile
    from ocitool.mirror.items import Stores
    from ocitool.mirror.lockfile import Lock
    from ocitool.mirror.plans import Plan

_WHOLE = Shard()
# A question is answered in a moment and moves nothing, so that more of them may be under way at once.
_QUESTIONS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a job is done, beyond what its file says.

    Attributes:
        lock: replay this; tags that have moved since are reported, not followed.
        shard: do this part of the images.
        state: directory for what is kept across runs: manifests that were read, and the count of pulls.
        may_pull: False makes plans from HEAD requests alone, which leaves bytes unknown.
    """

    lock: Lock | None = None
    shard: Shard = _WHOLE
    state: Path | None = None
    may_pull: bool = True


class Job:
    """A mirror file, about to be carried out.

    Attributes:
        meter: what has been asked of the sources so far.
        limits: what bounds the job.
    """

    def __init__(
        self,
        file: MirrorFile,
        stores: Stores,
        settings: Settings,
        *,
        limits: Limits | None = None,
        on_event: OnEvent = ignore,
    ) -> None:
        self.limits = limits or file.limits
        self._file = file
        self._stores = stores
        self._settings = settings
        self._on_event = on_event
        state = settings.state
        self.meter = Meter(
            ManifestCache(state / "manifests" if state else None),
            budget=PullBudget(self.limits.pulls, state / "pulls.json" if state else None),
            bucket=TokenBucket(self.limits.rate) if self.limits.rate else None,
            may_pull=settings.may_pull,
        )
        questions = _QUESTIONS * self.limits.jobs
        self._listings = Listings(jobs=questions)
        self._planner = Planner(stores, self.meter, self._listings, jobs=questions)
        self._applier = Applier(stores, self._planner, self.meter, jobs=self.limits.jobs, on_event=on_event)
        self._wanted: Wanted | None = None

    @property
    def wanted(self) -> Wanted:
        """All images that the file, or the lock, names, whatever the shard."""
        if self._wanted is None:
            lock = self._settings.lock
            self._wanted = (
                Wanted(lock.items, ()) if lock else expand(self._file, self._stores, self._listings)
            )
        return self._wanted

    def plan(self) -> Plan:
        """Find out what is to be done, without doing it."""
        lock = self._settings.lock
        pins = lock.pins if lock else {}
        items = [item for item in self.wanted.items if self._settings.shard.takes(item, pins)]
        plan = self._planner.plan(items, pins)
        return replace(plan, failures=(*self.wanted.failures, *plan.failures))

    def apply(self, plan: Plan) -> Run:
        """Do it."""
        run = self._applier.apply(plan)
        self.meter.cache.sweep()
        return run

    def so_far(self, plan: Plan) -> Run:
        """What `apply` has done of it, where that was interrupted."""
        return self._applier.so_far(plan)

    def plan_prune(self) -> PrunePlan:
        """Find what no rule wants any more. Of several shards, the first does it.

        Raises:
            Conflict: a rule failed, so that it is not known what is wanted.
        """
        if self.wanted.failures:
            raise Conflict(
                f"not every rule could be followed ({len(self.wanted.failures)} failed), so that it is not"
                " known what is wanted: nothing is pruned"
            )
        places: dict[str, set[str]] = {}
        if self._settings.shard.number == 1:
            for item in self.wanted.items:
                places.setdefault(item.target.place, set()).add(item.target.name)
        return plan_prune(places, self._stores)
