"""The process behind `hyperfeast serve`."""

import signal
import socket
import sys
from types import FrameType

import uvicorn

from hyperfeast.api.application import create
from hyperfeast.app import App
from hyperfeast.db import Database
from hyperfeast.errors import SchemaError, UsageError
from hyperfeast.migrate import state

_POOL_SIZE = 8


def run(model: str, *, host: str | None = None, port: int | None = None) -> None:
    """Serve a declared model until SIGTERM or Ctrl-C; requests in flight are finished.

    Args:
        model: its name in the feature repository.
        host: the address to listen on; None for the settings'.
        port: the port; 0 for any free one; None for the settings'.

    Raises:
        UsageError: the model is not declared, or the address cannot be listened on.
        ServerUnreachable: no PostgreSQL answers.
        AccessDenied: PostgreSQL refuses the user or the password.
        SchemaError: migrations are pending.
    """
    app = App(pool_size=_POOL_SIZE)
    settings = app.settings
    app.model_spec(model)
    # Without the pool, which would try again for minutes and hide why.
    _check_schema(Database(app.endpoints.postgres_dsn))
    listener = _listen(host or settings.api_host, settings.api_port if port is None else port)
    address, bound = listener.getsockname()[:2]
    server = uvicorn.Server(
        uvicorn.Config(create(app, model), log_level="warning", access_log=False)
    )
    # uvicorn finishes the requests in flight, then raises the signal again: that is a clean end.
    signal.signal(signal.SIGTERM, _exit)
    sys.stdout.write(f"listening on http://{address}:{bound} (API documentation at /docs)\n")
    sys.stdout.flush()
    try:
        server.run(sockets=[listener])
    finally:
        app.close()


def _check_schema(database: Database) -> None:
    if pending := state(database).pending:
        raise SchemaError(
            f"{database.address}: {len(pending)} migrations are pending: run `hyperfeast migrate`"
        )


def _exit(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror}. Choose another with --host and --port"
        ) from error
