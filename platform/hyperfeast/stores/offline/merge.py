"""The streamed as-of merge: a view's rows come as Arrow, are matched by position, and are gathered in spine order.

While rows fit into the memory that is left they stay there. As soon as they do not, they go through
files, part by part: see `parts`. Nothing is lost when the estimate was wrong: the turn to files is
taken when the rows that came have filled the memory, not before.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pyarrow as pa

from hyperfeast.stores.offline import parts
from hyperfeast.stores.offline.answers import Answer, Held, unmatched
from hyperfeast.stores.offline.asof import newest
from hyperfeast.stores.offline.entities import as_numbers
from hyperfeast.stores.offline.request import View
from hyperfeast.stores.offline.rows import features, timed
from hyperfeast.stores.offline.sides import Side


def merged(
    view: View,
    batches: Iterator[pa.RecordBatch],
    spine: Side,
    *,
    by_created: bool,
    memory: int,
    expected_bytes: int,
    files: ExitStack,
) -> Answer:
    """Match a view's rows with the spine.

    Args:
        view: whose rows.
        batches: the result of `rows_query`.
        spine: the other side.
        by_created: whether only rows count that were recorded by the spine row's moment.
        memory: how many bytes of rows may stay in memory.
        expected_bytes: how many come, by the planner's estimate.
        files: what closes the files, if any.
    """
    kept: list[pa.RecordBatch] = []
    size = rows = 0
    for batch in batches:
        kept.append(batch)
        size += batch.nbytes
        rows += batch.num_rows
        if size > memory:
            how = parts.sizes(memory, size // rows + 8, max(expected_bytes, 2 * size), spine)
            return parts.spilled(
                view, kept, batches, spine, by_created=by_created, how=how, files=files
            )
    if not kept:
        return unmatched(view, len(spine.times))
    table = pa.Table.from_batches(kept)
    kept.clear()
    keys = [as_numbers(table.column(f"key_{number}")) for number in range(len(view.keys))]
    matched = newest(
        spine.moments,
        timed(view, table, spine.entities.of(keys)),
        ttl_us=view.ttl_us,
        by_created=by_created,
    )
    return Held(features(view, table), matched)
