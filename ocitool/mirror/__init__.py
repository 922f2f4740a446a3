"""Mirroring as desired state: a file says what should be where, a plan says what that costs."""

from __future__ import annotations

from ocitool.mirror.applying import Result, Run
from ocitool.mirror.budgets import PullLimit
from ocitool.mirror.config import Limits, MirrorFile
from ocitool.mirror.importers import parse
from ocitool.mirror.items import Stores
from ocitool.mirror.job import Job, Settings
from ocitool.mirror.lockfile import Lock
from ocitool.mirror.plans import Image, Plan
from ocitool.mirror.sharding import Shard

__all__ = [
    "Image",
    "Job",
    "Limits",
    "Lock",
    "MirrorFile",
    "Plan",
    "PullLimit",
    "Result",
    "Run",
    "Settings",
    "Shard",
    "Stores",
    "parse",
]
