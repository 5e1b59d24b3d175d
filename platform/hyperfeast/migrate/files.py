"""The migrations of `sql/migrations`: which of them an edition gets, and their numbers.

`*.sql` are for every edition. Migrations of one number in the subfolders are one migration, written
for different editions: they make the same relations with the same columns.
"""

from pathlib import Path

from hyperfeast import sqlfiles
from hyperfeast.types import Edition

_ROLLBACK = ".rollback"

TIMESCALEDB = "timescaledb"
COMMUNITY = "community"
ELSEWHERE = "elsewhere"

_FOLDERS = {
    Edition.COMMUNITY: (TIMESCALEDB, COMMUNITY),
    Edition.APACHE: (TIMESCALEDB, ELSEWHERE),
    Edition.PLAIN: (ELSEWHERE,),
}


def of_edition(edition: Edition) -> dict[str, Path]:
    """The migrations of an edition by their ids, in the order of their numbers."""
    return _read(*_FOLDERS[edition])


def known_ids() -> set[str]:
    """The ids of the migrations of all editions."""
    return set(_read(TIMESCALEDB, COMMUNITY, ELSEWHERE))


def number_of(migration_id: str) -> int:
    """The number that a migration's id begins with: 7 for `0007.signals`."""
    return int(migration_id.split(".", 1)[0])


def newest_number() -> int:
    """The highest number that there is, in any edition."""
    return max(map(number_of, known_ids()))


def _read(*subfolders: str) -> dict[str, Path]:
    root = sqlfiles.folder("migrations")
    paths = [
        path
        for folder in (root, *(root / name for name in subfolders))
        for path in folder.glob("*.sql")
        if not path.stem.endswith(_ROLLBACK)
    ]
    return {path.stem: path for path in sorted(paths, key=lambda path: number_of(path.stem))}
