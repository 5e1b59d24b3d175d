"""The HTTP interface: route, call, map errors."""

from hyperfeast.api.application import create
from hyperfeast.api.server import run

__all__ = ["create", "run"]
