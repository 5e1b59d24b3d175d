"""What the migrator tells: the schema as it stands, and what a run did to it."""

from dataclasses import dataclass

from hyperfeast.types import Edition


@dataclass(frozen=True)
class SchemaState:
    """The schema of a database as it stands.

    Attributes:
        edition: what the database is set up on; for an empty one, what it would be set up on.
        applied: the ids of the applied migrations, in order.
        pending: the ids of those that are yet to be applied, in order.
        current: the highest applied number; 0 for an empty database.
    """

    edition: Edition
    applied: list[str]
    pending: list[str]
    current: int


@dataclass(frozen=True)
class MigrationReport:
    """What a run of the migrator did, or would have done.

    Attributes:
        edition: what the database is set up on.
        applied: the ids that were applied, in order.
        rolled_back: the ids that were taken back, in order: the newest first.
        current: the highest number that the database holds now. A dry run does not change it.
        dry_run: nothing was done: `applied` and `rolled_back` are what a run would do.
    """

    edition: Edition
    applied: list[str]
    rolled_back: list[str]
    current: int
    dry_run: bool
