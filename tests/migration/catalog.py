"""Everything that a schema consists of, as text: to compare two of them, and to write one down."""

from typing import Any

from hyperfeast.db import Database

# What the record of migrations and the queue make for themselves is not the schema's.
_OURS = "relnamespace = current_schema()::regnamespace AND relname !~ '^_?(yoyo|procrastinate)'"

_PARTS = {
    "columns": f"""
        SELECT c.relname, c.relkind, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
            a.attidentity, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
        FROM pg_class AS c
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE {_OURS} AND c.relkind IN ('r', 'v', 'm') ORDER BY 1, 3""",
    "relations": f"""
        SELECT relname, relkind, obj_description(oid, 'pg_class'), reloptions,
            CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid) END
        FROM pg_class WHERE {_OURS} ORDER BY 1""",
    "constraints": f"""
        SELECT c.relname, k.conname, pg_get_constraintdef(k.oid), k.convalidated
        FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid WHERE {_OURS} ORDER BY 1, 2""",
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes
        WHERE schemaname = current_schema() AND tablename !~ '^_?(yoyo|procrastinate)' ORDER BY 1, 2""",
    "triggers": f"""
        SELECT c.relname, t.tgname, pg_get_triggerdef(t.oid) FROM pg_trigger AS t
        JOIN pg_class AS c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal AND {_OURS} ORDER BY 1, 2""",
    "functions": """
        SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc')
        FROM pg_proc AS p
        WHERE pronamespace = current_schema()::regnamespace AND prokind = 'f'
            AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')
            AND proname !~ '^procrastinate' ORDER BY 1""",
    "types": """
        SELECT typname, typtype FROM pg_type AS t
        WHERE typnamespace = current_schema()::regnamespace AND typtype IN ('e', 'd')
            AND typname !~ '^procrastinate' ORDER BY 1""",
}


def catalog(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Relations, columns, constraints, indexes, triggers, functions and types, each with its comment.

    A column's number is left out, since one that was dropped and made again gets another; its place is not.
    """
    found = {}
    with database.connect() as connection:
        for name, statement in _PARTS.items():
            rows = connection.execute(statement).fetchall()  # type: ignore[call-overload]
            found[name] = [
                tuple(value for key, value in row.items() if key != "attnum") for row in rows
            ]
    return found


def page(database: Database) -> str:
    """The tables and views with their columns, as a page for people."""
    rows = database.fetch(
        "SELECT c.relname AS name, c.relkind = 'r' AS is_table, obj_description(c.oid, 'pg_class') AS says, "
        "a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required, "
        "col_description(c.oid, a.attnum) AS meaning FROM pg_class AS c "
        "JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
        "WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'v', 'm') "
        "AND c.relname !~ '^_?(yoyo|procrastinate)' AND right(c.relname, 5) <> '_kept' "
        "ORDER BY c.relname, a.attnum"
    )
    lines = [
        "# The schema",
        "",
        "What `hyperfeast migrate` makes, by the comments in the database; `\\d+ candles` in psql says the same.",
        "All times are `timestamptz`, UTC. [Time](clocks.md) says which clock a column belongs to.",
    ]
    for name in dict.fromkeys(row["name"] for row in rows):
        columns = [row for row in rows if row["name"] == name]
        lines += [
            "",
            f"## `{name}`",
            "",
            columns[0]["says"],
            "",
            "| column | type | meaning |",
            "|---|---|---|",
        ]
        lines += [
            f"| `{row['column']}` | {_TYPES.get(row['type'], row['type'])}"
            f"{'' if row['required'] or not row['is_table'] else ', nullable'} | {row['meaning']} |"
            for row in columns
        ]
    return "\n".join(lines).replace("…", "...") + "\n"


_TYPES = {"timestamp with time zone": "timestamptz", "double precision": "float8"}
