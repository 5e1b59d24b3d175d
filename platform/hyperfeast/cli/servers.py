"""`hyperfeast up | down | status | migrate`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hyperfeast.cli import console

if TYPE_CHECKING:
    from hyperfeast.monitoring import PlatformStatus


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(migrate)


def up(
    dsn: Annotated[
        bool,
        typer.Option("--dsn", help='Print PostgreSQL\'s DSN, password included: psql "$(...)".'),
    ] = False,
    redis_url: Annotated[
        bool, typer.Option("--redis-url", help="Print Redis's URL, password included.")
    ] = False,
    as_json: console.AsJson = False,
) -> None:
    """Start the servers that are not set by HYPERFEAST_POSTGRES_DSN and HYPERFEAST_REDIS_URL."""
    from hyperfeast.app import App
    from hyperfeast.cache import address
    from hyperfeast.db import Database

    with console.spinner("starting the servers"):
        endpoints = App().endpoints
    if dsn:
        console.say(endpoints.postgres_dsn)
    if redis_url:
        console.say(endpoints.redis_url)
    if dsn or redis_url:
        return
    postgres, redis = Database(endpoints.postgres_dsn).address, address(endpoints.redis_url)
    if as_json:
        console.print_json({"postgres": postgres, "redis": redis})
    else:
        console.say(f"PostgreSQL  {postgres}\nRedis       {redis}")


def down(as_json: console.AsJson = False) -> None:
    """Stop the embedded servers. Their data stay."""
    from hyperfeast.app import App

    with console.spinner("stopping the servers"):
        stopped = App().embedded.down()
    if as_json:
        console.print_json({"stopped": stopped})
    else:
        console.say(
            f"stopped: {', '.join(stopped)}" if stopped else "no embedded server was running"
        )


def status(
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Count large tables, too: else ~ is the planner's estimate."),
    ] = False,
    as_json: console.AsJson = False,
) -> None:
    """Show servers, edition, migrations, row counts and freshness."""
    from hyperfeast.app import App
    from hyperfeast.monitoring import exact as counted

    app = App()
    with console.spinner("looking"):
        found = app.status()
        # Only then is there a database to count in: this command starts none.
        if exact and found.tables:
            found = counted(app.database, found)
    if as_json:
        console.print_json(asdict(found) | {"healthy": found.healthy})
    else:
        _print_status(found)
    if not found.healthy:
        raise typer.Exit(1)


def migrate(
    to: Annotated[
        int | None, typer.Option(help="Go forward or back to this number; 0 is empty.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; do nothing.")
    ] = False,
    as_json: console.AsJson = False,
) -> None:
    """Bring the database's schema to this version's, or to a given number."""
    from hyperfeast.app import App
    from hyperfeast.migrate import migrate

    app = App()
    with console.spinner("migrating"):
        report = migrate(app.database, to=to, dry_run=dry_run)
    if as_json:
        console.print_json(report)
        return
    would = "would be " if dry_run else ""
    for name in report.applied:
        console.say(f"{would}applied      {name}")
    for name in report.rolled_back:
        console.say(f"{would}rolled back  {name}")
    console.say(f"{report.edition}: schema at {report.current:04d}")


def _print_status(found: "PlatformStatus") -> None:
    console.print_table(
        ["server", "address", "version"],
        [[one.name, one.address, one.version or f"DOWN: {one.error}"] for one in found.servers],
    )
    if found.edition is not None:
        cost = f": {found.edition.cost}" if found.edition.cost else ""
        console.say(f"{found.edition}{cost}")
    if found.schema is not None:
        pending = found.schema.pending
        note = f", {len(pending)} pending: run `hyperfeast migrate`" if pending else ""
        console.say(
            f"schema at {found.schema.current:04d}, "
            f"{len(found.schema.applied)} migrations of this edition applied{note}"
        )
    if found.tables:
        console.print_table(
            ["table", "rows", "newest"],
            [
                [one.table, f"~{one.rows:,}" if one.estimated else one.rows, one.newest]
                for one in found.tables
            ],
        )
