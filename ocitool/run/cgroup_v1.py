"""`linux.resources` in the files of cgroup version 1 (config-linux.md, "Control groups")."""

from __future__ import annotations

import posix

from .kernel import CLOEXEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Settings = list[tuple[str, str, str]]

# A container can always use these: the default devices, the terminals, and mknod of anything.
DEFAULT_RULES = (
    "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm",
    "c 5:2 rwm", "c 136:* rwm",
)  # fmt: skip


def settings(resources: dict[str, Any], has_swap: bool = True) -> Settings:  # noqa: FBT001, FBT002 - a fact of the host
    """All but the devices, as (controller, file, value) in the order in which they are written."""
    found: Settings = []
    _memory(found, resources.get("memory") or {}, has_swap=has_swap)
    _cpu(found, resources.get("cpu") or {})
    pids = resources.get("pids") or {}
    if pids.get("limit") is not None:
        # 0 is a limit as any other; what is below it means none.
        found.append(("pids", "pids.max", str(pids["limit"]) if pids["limit"] >= 0 else "max"))
    _block(found, resources.get("blockIO") or {})
    for page in resources.get("hugepageLimits") or []:
        found.append(("hugetlb", f"hugetlb.{page['pageSize']}.limit_in_bytes", str(page["limit"])))
    _network(found, resources.get("network") or {})
    found += [("rdma", "rdma.max", line) for line in rdma_lines(resources.get("rdma") or {})]
    return found


def _memory(found: Settings, memory: dict[str, Any], *, has_swap: bool) -> None:
    limit, swap = memory.get("limit"), memory.get("swap")
    pairs = [
        ("memory.limit_in_bytes", limit),
        ("memory.memsw.limit_in_bytes", swap if has_swap or swap else None),
    ]
    # The limit of both together must never be below that of memory alone. A new cgroup has no limit,
    # so memory comes first; where both are lifted, swap does.
    if limit is not None and limit < 0 and swap is not None:
        pairs.reverse()
    pairs += [
        ("memory.soft_limit_in_bytes", memory.get("reservation")),
        ("memory.kmem.limit_in_bytes", memory.get("kernel")),
        ("memory.kmem.tcp.limit_in_bytes", memory.get("kernelTCP")),
        ("memory.swappiness", memory.get("swappiness")),
        ("memory.use_hierarchy", 1 if memory.get("useHierarchy") else None),
        ("memory.oom_control", 1 if memory.get("disableOOMKiller") else None),
    ]
    found += [("memory", name, str(value)) for name, value in pairs if value is not None]


def _cpu(found: Settings, cpu: dict[str, Any]) -> None:
    # The period comes first: a quota is checked against it.
    names = {
        "shares": "cpu.shares", "period": "cpu.cfs_period_us", "quota": "cpu.cfs_quota_us",
        "burst": "cpu.cfs_burst_us", "realtimePeriod": "cpu.rt_period_us",
        "realtimeRuntime": "cpu.rt_runtime_us", "idle": "cpu.idle",
    }  # fmt: skip
    for key, name in names.items():
        if cpu.get(key):
            found.append(("cpu", name, str(cpu[key])))
    for key in ("cpus", "mems"):
        if cpu.get(key):
            found.append(("cpuset", f"cpuset.{key}", cpu[key]))


def _block(found: Settings, block: dict[str, Any]) -> None:
    for key, name in (("weight", "blkio.weight"), ("leafWeight", "blkio.leaf_weight")):
        if block.get(key):
            found.append(("blkio", name, str(block[key])))
    for device in block.get("weightDevice") or []:
        for key, name in (("weight", "blkio.weight_device"), ("leafWeight", "blkio.leaf_weight_device")):
            if device.get(key):
                found.append(("blkio", name, f"{device['major']}:{device['minor']} {device[key]}"))
    for kind, name in (
        ("ReadBps", "read_bps"),
        ("WriteBps", "write_bps"),
        ("ReadIOPS", "read_iops"),
        ("WriteIOPS", "write_iops"),
    ):
        for device in block.get(f"throttle{kind}Device") or []:
            found.append(
                (
                    "blkio",
                    f"blkio.throttle.{name}_device",
                    f"{device['major']}:{device['minor']} {device['rate']}",
                )
            )


def _network(found: Settings, network: dict[str, Any]) -> None:
    if network.get("classID"):
        found.append(("net_cls", "net_cls.classid", str(network["classID"])))
    for entry in network.get("priorities") or []:
        found.append(("net_prio", "net_prio.ifpriomap", f"{entry['name']} {entry['priority']}"))


def rdma_lines(rdma: dict[str, Any]) -> list[str]:
    """The lines of rdma.max, which has the same form in both versions."""
    lines = []
    for device, limits in rdma.items():
        line = device
        for key, name in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
            if limits.get(key) is not None:
                line += f" {name}={limits[key]}"
        lines.append(line)
    return lines


def device_settings(devices: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The rules of `devices` as (file, rule).

    "The runtime MUST apply entries in the listed order." The defaults follow the last entry that
    denies everything, so that what is listed after it can still take one of them away.
    """
    found = [("devices.deny", "a")]
    rules = ordered_rules(devices)
    for rule in rules:
        name = "devices.allow" if rule["allow"] else "devices.deny"
        kind = rule.get("type") or "a"
        if kind == "a":
            if is_everything(rule):
                found.append((name, "a"))
                continue
            found += [(name, rule_text(rule, each)) for each in ("b", "c")]
        else:
            found.append((name, rule_text(rule, kind)))
    return found


def ordered_rules(devices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The configured rules, with the default ones where they belong."""
    start = 0
    for position, rule in enumerate(devices):
        if not rule["allow"] and is_everything(rule):
            start = position + 1
    defaults = [parse_rule(rule) for rule in DEFAULT_RULES]
    listed = devices[start:]
    # Only a denial can take a default away, so only then does it matter that the defaults come first;
    # otherwise what was asked for stands first, where people and tools look for it.
    return [*listed, *defaults] if all(rule["allow"] for rule in listed) else [*defaults, *listed]


def parse_rule(text: str) -> dict[str, Any]:
    """A rule of the kernel's form as an entry of `devices`."""
    kind, number, access = text.split()
    major, _, minor = number.partition(":")
    rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    if major != "*":
        rule["major"] = int(major)
    if minor != "*":
        rule["minor"] = int(minor)
    return rule


def is_everything(rule: dict[str, Any]) -> bool:
    """Whether a rule is about every device and every access."""
    return (
        (rule.get("type") or "a") == "a"
        and all(rule.get(key) in (None, -1) for key in ("major", "minor"))
        and set(rule.get("access") or "rwm") >= set("rwm")
    )


def rule_text(rule: dict[str, Any], kind: str) -> str:
    """An entry of `devices` in the kernel's form."""
    numbers = ["*" if rule.get(key) in (None, -1) else str(rule[key]) for key in ("major", "minor")]
    return f"{kind} {':'.join(numbers)} {rule.get('access') or 'rwm'}"


def inherit_cpuset(directory: str) -> None:
    """Copy the CPUs and memory nodes of the parent: an empty set admits no process."""
    parent = directory.rpartition("/")[0]
    for name in ("cpuset.cpus", "cpuset.mems"):
        source = posix.open(f"{parent}/{name}", posix.O_RDONLY | CLOEXEC)
        target = posix.open(f"{directory}/{name}", posix.O_WRONLY | CLOEXEC)
        posix.write(target, posix.read(source, 4096))
        posix.close(source)
        posix.close(target)
