"""Feast's retrieval job for features as of moments: nothing runs before the answer is asked for."""

from collections.abc import Generator, Iterator

import pandas as pd
import pyarrow as pa
from feast import OnDemandFeatureView
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres import (
    PostgreSQLOfflineStoreConfig,
)
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.saved_dataset import SavedDatasetStorage

from hyperfeast.errors import UsageError
from hyperfeast.stores.offline import write
from hyperfeast.stores.offline.reading import Reading, Request
from hyperfeast.stores.offline.spine import instant
from hyperfeast.stores.offline.stream import RecordBatches

# A statement longer than this is of use to nobody, and may be more than the server takes.
_WRITTEN_ROWS = 10_000


class PointInTimeJob(RetrievalJob):
    """Features for the rows of a spine, or of a date range.

    The answer has the spine's columns and then the features, a row for each of the spine's, in its
    order. Of feature rows that tie in event time and created time it takes one: the others are equally
    right. `to_arrow_reader` streams it; memory stays within `memory_limit_mb` there.

    Args:
        config: Feast's `offline_store` section.
        request: what is asked for.
        feature_refs: as Feast has them, for the metadata.
        on_demand_feature_views: what Feast computes from the answer.
        full_feature_names: whether features bear their view's name.
    """

    def __init__(
        self,
        config: PostgreSQLOfflineStoreConfig,
        request: Request,
        *,
        feature_refs: list[str],
        on_demand_feature_views: list[OnDemandFeatureView],
        full_feature_names: bool,
    ) -> None:
        self._config, self._request = config, request
        self._feature_refs = feature_refs
        self._on_demand = on_demand_feature_views
        self._full_feature_names = full_feature_names
        self._metadata: RetrievalMetadata | None = None

    def to_arrow_reader(self, timeout: int | None = None) -> RecordBatches:
        """The answer as a stream, on-demand features included.

        Close it, or read it to its end: the database's transaction is open until then. Left before its
        end, it cancels what the server is working on.

        Args:
            timeout: seconds that the server may work on a statement.

        Returns:
            Batches of 65,536 rows at most.

        Raises:
            FeatureError: the spine or a view does not fit; it names the view, the column and the remedy.
            ServerError: PostgreSQL does not answer, or refuses.
        """
        batches = self._batches(timeout)
        # An empty one, for its schema.
        return RecordBatches(next(batches).schema, batches)

    def explain(self) -> str:
        """How each view would be read, and the estimates behind the choice; a spine that is a query is run for it.

        Returns:
            A line a view.
        """
        with Reading(self._config, self._request) as reading:
            plans = reading.planned()
        if not plans:
            return (
                "one query: nothing is joined"
                if self._request.spine is None
                else "an empty spine: nothing is read"
            )
        return "\n".join(plan.text() for plan in plans)

    def to_sql(self) -> str:
        """One statement with the same answer. The spine is written out in it.

        Raises:
            UsageError: the spine is longer than 10,000 rows.
        """
        with Reading(self._config, self._request) as reading:
            rows = reading.spine_rows
            if rows > _WRITTEN_ROWS:
                raise UsageError(
                    f"to_sql: expected a spine of {_WRITTEN_ROWS:,} rows at most, since it is written out in the "
                    f"statement, found {rows:,}: ask for fewer, or use to_arrow"
                )
            return reading.statement()

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool | None = False,  # noqa: FBT001, FBT002 - Feast's signature
        timeout: int | None = None,
    ) -> None:
        """Write the answer into a table of its own, as `write.save_dataset` does."""
        with self.to_arrow_reader(timeout) as reader:
            write.save_dataset(self._config, reader, storage, allow_overwrite=bool(allow_overwrite))

    @property
    def full_feature_names(self) -> bool:
        """Whether features bear their view's name."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """What Feast computes from the answer."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata:
        """Keys and bounds of the spine; a query is run for them, once."""
        if self._metadata is None:
            with Reading(self._config, self._request) as reading:
                self._metadata = self._of(reading)
        return self._metadata

    def _of(self, reading: Reading) -> RetrievalMetadata:
        keys, bounds = reading.keys(), reading.bounds()
        first, last = (None, None) if bounds is None else map(instant, bounds)
        return RetrievalMetadata(self._feature_refs, keys, first, last)

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        with Reading(self._config, self._request, timeout) as reading:
            table = reading.table()
            # Feast asks for it, if only for the names, where there are on-demand features.
            self._metadata = self._of(reading)
            return table

    def _batches(self, timeout: int | None) -> Generator[pa.RecordBatch, None, None]:
        """The answer behind an empty batch that tells its schema."""
        with Reading(self._config, self._request, timeout) as reading:
            empty = pa.RecordBatch.from_pylist([], schema=reading.schema)
            yield from self._with_on_demand(empty)
            for batch in reading.batches():
                yield from self._with_on_demand(batch)

    def _with_on_demand(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """At least one batch: texts of more than 2 GiB come in several."""
        if not self._on_demand:
            yield batch
            return
        table = _BatchJob(self, batch, self._feature_refs).to_arrow()
        if table.num_rows:
            yield from table.combine_chunks().to_batches()
        else:
            yield pa.RecordBatch.from_pylist([], schema=table.schema)


class _BatchJob(RetrievalJob):
    """A batch of an answer, for Feast to add on-demand features to."""

    def __init__(self, job: PointInTimeJob, batch: pa.RecordBatch, feature_refs: list[str]) -> None:
        self._job, self._batch, self._feature_refs = job, batch, feature_refs

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002
        return pa.Table.from_batches([self._batch])

    @property
    def full_feature_names(self) -> bool:
        return self._job.full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._job.on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata:
        # Feast looks at the names alone, and the job's own would read the spine's query again.
        return RetrievalMetadata(self._feature_refs, [])
