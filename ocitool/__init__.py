"""ocitool: move, inspect, unpack and run container images without a daemon.

Importing this package loads nothing but this file: every part is a module of its own, and
`docs/explanation/concepts.md` says which does what.
"""

__version__ = "0.1.0"
