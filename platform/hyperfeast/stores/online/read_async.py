"""Reading features from Redis without blocking: made from read.py by scripts/generate-async."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from feast import FeatureStore, FeatureView, RepoConfig
from feast.infra.online_stores.online_store import OnlineStore
from feast.online_response import OnlineResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from redis.exceptions import RedisError

from hyperfeast.stores.online import answers
from hyperfeast.stores.online.answers import OnlineMatrix
from hyperfeast.stores.online.asked import Asked, EntityRows, asked, plainly_asked
from hyperfeast.stores.online.exchange import raise_translated, translated
from hyperfeast.stores.online.plan import Features, Plan, one_view
from hyperfeast.stores.online.reading import FEW_KEYS, Reading, in_other_layout, reader_of
from hyperfeast.stores.online.response import Response
from hyperfeast.stores.online.response import entity_rows as as_entity_rows
from hyperfeast.stores.online.tracking import track_read
from hyperfeast.stores.online.views import Commands, Found


async def online_matrix_async(
    store: FeatureStore,
    features: Features,
    entity_rows: EntityRows,
    *,
    full_feature_names: bool = False,
) -> OnlineMatrix:
    """The online values of numeric features as one matrix, in one round trip to Redis.

    Args:
        store: whose online store is `hyperfeast.stores.FastRedisOnlineStore`.
        features: a feature service, or references `view:feature`.
        entity_rows: a mapping a row (join key -> value), or a column a join key: a list, a NumPy array or
            an Arrow array. An entity may stand in many rows; it is read once.
        full_feature_names: whether a feature's name is `view__feature`.

    Returns:
        n rows in the order of the entity rows, k columns in the order in which the features were asked
        for, and the event time of each view's row. NaN where a value is missing, never 0.

    Raises:
        FeatureError: a feature is no number, or is computed on demand; all rows are in the other layout.
        UsageError: a join key is missing, rows have different keys, or columns different lengths.
        DataError: a join key's value is missing or of another type; a stored value is no number.
        SchemaError: in the packed layout, values were packed under another schema.
        ServerUnreachable: Redis does not answer in time.
    """
    reader = reader_of(store)
    found: OnlineMatrix = await reader.online_matrix_async(
        store.config,
        features,
        entity_rows,
        store.registry,
        store.project,
        full_feature_names=full_feature_names,
    )
    return found


async def online_arrow_async(
    store: FeatureStore,
    features: Features,
    entity_rows: EntityRows,
    *,
    full_feature_names: bool = False,
    event_timestamps: bool = False,
) -> pa.Table:
    """The online values of features of any type as an Arrow table, in one round trip to Redis.

    Args:
        store: whose online store is `hyperfeast.stores.FastRedisOnlineStore`.
        features: a feature service, or references `view:feature`.
        entity_rows: as `online_matrix` takes them.
        full_feature_names: whether a feature's name is `view__feature`.
        event_timestamps: whether to add `<view>__event_timestamp` for each view: UTC, microseconds; null
            where there is no row.

    Returns:
        The entity columns, then the features in the order in which they were asked for, a row an entity
        row. Null where a value is missing. Times are UTC; sets are lists; JSON, UUIDs and decimals are
        text, as they are stored.

    Raises:
        FeatureError: a feature is computed on demand; all rows are in the other layout.
        UsageError, DataError, SchemaError, ServerUnreachable: as `online_matrix`.
    """
    reader = reader_of(store)
    found: pa.Table = await reader.online_arrow_async(
        store.config,
        features,
        entity_rows,
        store.registry,
        store.project,
        full_feature_names=full_feature_names,
        event_timestamps=event_timestamps,
    )
    return found


class AsyncOnlineReads(Reading):
    """What of `FastRedisOnlineStore` reads."""

    async def get_online_features_async(
        self,
        config: RepoConfig,
        features: Features,
        entity_rows: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        include_feature_view_version_metadata: bool = False,  # noqa: FBT001, FBT002
    ) -> OnlineResponse:
        """Feast's response, equal to that of Feast's own Redis store.

        What is computed on demand or was precomputed, and rows that Feast has to convert, go through
        Feast's own code.

        Raises:
            ServerUnreachable: Redis does not answer in time.
        """
        plan = self._plans.of(
            config, registry, project, features, full_feature_names=full_feature_names
        )
        rows = None if plan is None else plainly_asked(plan, entity_rows)
        if plan is None or rows is None or include_feature_view_version_metadata:
            with translated(config.online_store):
                return await super().get_online_features_async(
                    config,
                    features,
                    entity_rows,
                    registry,
                    project,
                    full_feature_names,
                    include_feature_view_version_metadata,
                )
        started = time.monotonic()
        found = await self._found_async(config, plan, rows)
        track_read(plan, rows.rows, time.monotonic() - started)
        return Response(plan, rows, found)

    async def online_matrix_async(
        self,
        config: RepoConfig,
        features: Features,
        entity_rows: EntityRows,
        registry: Any,
        project: str,
        *,
        full_feature_names: bool = False,
    ) -> OnlineMatrix:
        """Numeric features as one matrix. See the function of this name."""
        plan = self._stored(
            config, registry, project, features, full_feature_names=full_feature_names
        )
        return await self.matrix_of_async(config, plan, asked(plan, entity_rows))

    async def matrix_of_async(self, config: RepoConfig, plan: Plan, rows: Asked) -> OnlineMatrix:
        """The same of a request that has its plan."""
        answers.refuse_what_is_no_number(plan)
        found = await self._found_async(config, plan, rows)
        return answers.matrix(plan, rows, found)

    async def online_arrow_async(
        self,
        config: RepoConfig,
        features: Features,
        entity_rows: EntityRows,
        registry: Any,
        project: str,
        *,
        full_feature_names: bool = False,
        event_timestamps: bool = False,
    ) -> pa.Table:
        """Features as an Arrow table. See the function of this name."""
        plan = self._stored(
            config, registry, project, features, full_feature_names=full_feature_names
        )
        rows = asked(plan, entity_rows)
        found = await self._found_async(config, plan, rows)
        return answers.table(plan, rows, found, event_timestamps=event_timestamps)

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: Sequence[EntityKey],
        requested_features: Sequence[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """Event time and values of each entity of one view, as Feast's Redis store returns them.

        Raises:
            ServerUnreachable: Redis does not answer in time.
        """
        view, reads = one_view(config, table, requested_features)
        keys = [self._generate_redis_keys_for_entities(config, list(entity_keys))]
        (found,) = reads.found(keys, await self._replies_async(config, reads.commands(keys)))
        return as_entity_rows(view.features, found.values(), found.stamps())

    async def _read_features_per_fv_async(self, config: RepoConfig, *arguments: Any) -> None:
        """What Feast's own code reads; its Redis store knows its own layout only."""
        if config.online_store.layout == "packed":
            await OnlineStore._read_features_per_fv_async(self, config, *arguments)  # noqa: SLF001 - our own method
        else:
            await super()._read_features_per_fv_async(config, *arguments)

    async def _found_async(self, config: RepoConfig, plan: Plan, rows: Asked) -> list[Found]:
        """What Redis holds of each view, a row for each distinct entity."""
        replies = await self._replies_async(config, plan.reads.commands(rows.keys))
        if self._is_suspect(plan, replies):
            await self._refuse_other_layout_async(config, plan, rows)
        return plan.reads.found(rows.keys, replies)

    async def _refuse_other_layout_async(self, config: RepoConfig, plan: Plan, rows: Asked) -> None:
        """Refuse a request whose rows are all in the layout that is not read."""
        few = [keys[:FEW_KEYS] for keys in rows.keys]
        replies = await self._replies_async(config, in_other_layout(config, plan).commands(few))
        self._refuse_misplaced(config, plan, few, replies)

    async def _replies_async(self, config: RepoConfig, commands: Commands) -> list[Any]:
        try:
            exchange = await self._exchange_with_async(config)
            return await exchange.send(commands)
        except RedisError as error:
            raise_translated(config.online_store, error)
