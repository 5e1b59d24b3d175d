"""Embedded servers: a real PostgreSQL and a real Redis from wheels, each under a supervisor.

Any number of processes may call `up()` at once: one server starts, and all get its address. It
outlives the process that started it and is stopped by `down()` alone.
"""

from hyperfeast.servers.endpoints import EmbeddedServers, Endpoints, found, in_use
from hyperfeast.servers.postgres import PostgresServer
from hyperfeast.servers.redis import RedisServer

__all__ = ["EmbeddedServers", "Endpoints", "PostgresServer", "RedisServer", "found", "in_use"]
