"""A registry: the distribution specification's server side, over any stores of content.

`Server` runs one in a thread, `serve` one until a signal comes, `create_app` is the ASGI application for
another server. What is served is a `Repositories`; `ProxyRepositories` are those of an upstream.
"""

from __future__ import annotations

from ocitool.serve.app import create_app
from ocitool.serve.passwords import Htpasswd, Passwords
from ocitool.serve.proxy import ProxyRepositories
from ocitool.serve.repositories import FixedRepositories, Repositories
from ocitool.serve.server import Server, serve
from ocitool.serve.service import Options, Served

__all__ = [
    "FixedRepositories",
    "Htpasswd",
    "Options",
    "Passwords",
    "ProxyRepositories",
    "Repositories",
    "Served",
    "Server",
    "create_app",
    "serve",
]
