"""Registries: the distribution-spec's client."""

from __future__ import annotations

from ocitool.registry.client import Client
from ocitool.registry.config import ClientConfig
from ocitool.registry.store import RegistryStore

__all__ = ["Client", "ClientConfig", "RegistryStore"]
