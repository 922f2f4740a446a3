"""A stand-in for systemd's manager on a real message bus: it makes a scope's cgroups, and notes its calls.

It speaks D-Bus through the reference library (Debian's python3-dbus), so that what is tested is not asked
about its own idea of the protocol. `/usr/bin/python3` runs it, with a log and the hierarchies as arguments.
"""
# mypy: ignore-errors
# ruff: noqa: N802, PTH103, PTH106, PTH120, PTH123, T201

import json
import os
import signal
import sys
import time

import dbus
import dbus.mainloop.glib
import dbus.service
from gi.repository import GLib

NAME = "org.freedesktop.systemd1"
MANAGER = f"{NAME}.Manager"


class NoSuchUnit(dbus.DBusException):
    _dbus_error_name = f"{NAME}.NoSuchUnit"


class UnitExists(dbus.DBusException):
    _dbus_error_name = f"{NAME}.UnitExists"


def plain(value):
    """A value of the bus as JSON has it."""
    if isinstance(value, dbus.Boolean):
        return bool(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return int(value)


class Unit(dbus.service.Object):
    def __init__(self, bus, path, group):
        super().__init__(bus, path)
        self.group = group

    @dbus.service.method("org.freedesktop.DBus.Properties", in_signature="ss", out_signature="v")
    def Get(self, interface, name):
        assert (interface, name) == (f"{NAME}.Scope", "ControlGroup")
        return self.group


class Manager(dbus.service.Object):
    def __init__(self, bus, log, hierarchies):
        super().__init__(bus, "/org/freedesktop/systemd1")
        self.bus, self.log, self.hierarchies = bus, log, hierarchies
        self.units = {}
        self.jobs = 0

    def note(self, member, *arguments):
        with open(self.log, "a") as file:
            file.write(json.dumps([member, *map(plain, arguments)]) + "\n")

    def job(self, unit, result="done"):
        """A job that ends in a while, after others' that nobody waits for."""
        self.jobs += 2
        path = f"/org/freedesktop/systemd1/job/{self.jobs}"
        other = f"/org/freedesktop/systemd1/job/{self.jobs - 1}"
        GLib.timeout_add(10, lambda: self.JobRemoved(self.jobs - 1, other, "other.service", "done"))
        GLib.timeout_add(30, lambda: self.JobRemoved(self.jobs, path, unit, result))
        return path

    @dbus.service.signal(MANAGER, signature="uoss")
    def JobRemoved(self, number, job, unit, result):
        pass

    @dbus.service.method(MANAGER)
    def Subscribe(self):
        self.note("Subscribe")

    @dbus.service.method(MANAGER, in_signature="ssa(sv)a(sa(sv))", out_signature="o")
    def StartTransientUnit(self, name, mode, properties, aux):
        self.note("StartTransientUnit", name, mode, [[key, value] for key, value in properties])
        if name in self.units:
            raise UnitExists(f"Unit {name} was already loaded or has a fragment file.")
        if "refused" in name:
            return self.job(name, "failed")
        values = dict(properties)
        group = f"/{values['Slice']}/{name}"
        for hierarchy in self.hierarchies:
            os.makedirs(hierarchy + group, exist_ok=True)
            for pid in values["PIDs"]:
                with open(f"{hierarchy}{group}/cgroup.procs", "w") as file:
                    file.write(str(int(pid)))
        path = f"/org/freedesktop/systemd1/unit/u{len(self.units)}x{int(time.time())}"
        self.units[name] = Unit(self.bus, path, group)
        return self.job(name)

    @dbus.service.method(MANAGER, in_signature="s", out_signature="o")
    def GetUnit(self, name):
        return self.units[name].__dbus_object_path__

    @dbus.service.method(MANAGER, in_signature="sba(sv)")
    def SetUnitProperties(self, name, runtime, properties):
        self.note("SetUnitProperties", name, runtime, [[key, value] for key, value in properties])

    @dbus.service.method(MANAGER, in_signature="ss", out_signature="o")
    def StopUnit(self, name, mode):
        self.note("StopUnit", name, mode)
        unit = self.units.pop(name, None)
        if unit is None:
            raise NoSuchUnit(f"Unit {name} not loaded.")
        for hierarchy in self.hierarchies:
            self.end(hierarchy + unit.group)
        unit.remove_from_connection()
        return self.job(name)

    @staticmethod
    def end(directory):
        for _ in range(200):
            try:
                with open(f"{directory}/cgroup.procs") as file:
                    pids = file.read().split()
                for pid in pids:
                    os.kill(int(pid), signal.SIGKILL)
                os.rmdir(directory)
                os.rmdir(os.path.dirname(directory))
            except FileNotFoundError:
                return
            except (OSError, ProcessLookupError):
                time.sleep(0.01)

    @dbus.service.method(MANAGER, in_signature="s")
    def ResetFailedUnit(self, name):
        self.note("ResetFailedUnit", name)


def main():
    dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
    bus = dbus.SystemBus()
    manager = Manager(bus, sys.argv[1], sys.argv[2:])
    name = dbus.service.BusName(NAME, bus)
    print("ready", flush=True)
    GLib.MainLoop().run()
    del manager, name


main()
