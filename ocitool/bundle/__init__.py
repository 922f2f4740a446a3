"""Bundles: one file that carries any number of images across an air gap.

A bundle is a plain tar file, an image layout that other tools read too, and an inventory of what it holds
and of what it presumes on the far side. docs/reference/bundle-format.md has the format.

`gather` finds what a bundle has to hold and `write` writes it; `BundleSource` reads it in place, `verify`
checks it, `apply` brings it to the far side, `inventory_of` says what that has.
"""

from ocitool.bundle.application import OneStore, RegistryDestination, Renaming, apply
from ocitool.bundle.creation import Gathered, Item, gather, write
from ocitool.bundle.difference import Difference, difference
from ocitool.bundle.files import BundleFile
from ocitool.bundle.holding import Holding, images_of, inventory_of
from ocitool.bundle.inventory import Entry, Image, Inventory
from ocitool.bundle.mending import repair
from ocitool.bundle.repositories import BundleRepositories
from ocitool.bundle.signing import KeySigner, check_signature
from ocitool.bundle.sinks import FileSink, Sink, StreamSink
from ocitool.bundle.source import BundleSource
from ocitool.bundle.verification import Problem, verify

__all__ = [
    "BundleFile",
    "BundleRepositories",
    "BundleSource",
    "Difference",
    "Entry",
    "FileSink",
    "Gathered",
    "Holding",
    "Image",
    "Inventory",
    "Item",
    "KeySigner",
    "OneStore",
    "Problem",
    "RegistryDestination",
    "Renaming",
    "Sink",
    "StreamSink",
    "apply",
    "check_signature",
    "difference",
    "gather",
    "images_of",
    "inventory_of",
    "repair",
    "verify",
    "write",
]
