"""Bundles: one file that carries any number of images across an air gap.

A bundle is a plain tar file, an image layout that other tools read too, and an inventory of what it holds
and of what it presumes on the far side. docs/reference/bundle-format.md has the format.
"""

from ocitool.bundle.creation import Gathered, Item, gather, write
from ocitool.bundle.files import BundleFile, FileSink, Sink, StreamSink
from ocitool.bundle.inventory import Entry, Image, Inventory
from ocitool.bundle.source import BundleSource

__all__ = [
    "BundleFile",
    "BundleSource",
    "Entry",
    "FileSink",
    "Gathered",
    "Image",
    "Inventory",
    "Item",
    "Sink",
    "StreamSink",
    "gather",
    "write",
]
