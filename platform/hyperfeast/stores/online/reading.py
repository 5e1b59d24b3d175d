"""What both ways of reading, blocking and not, share: plans, and how to reach Redis."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

from feast import FeatureStore, RepoConfig
from feast.infra.online_stores.redis import RedisClient, RedisOnlineStore

from hyperfeast.errors import DataError, FeatureError, SchemaError
from hyperfeast.stores.online.exchange import (
    AsyncExchange,
    Exchange,
    async_exchange_of,
    exchange_of,
)
from hyperfeast.stores.online.hashes import HashReads
from hyperfeast.stores.online.packed_reads import PackedReads
from hyperfeast.stores.online.plan import Features, Plan, Plans
from hyperfeast.stores.online.views import Reads

# Feast makes a store's client when it is first asked for; threads that ask at once must get the same one.
CLIENT_LOCK = RLock()
# Of so many entities of a request it is looked up whether they stand in the layout that is not read.
FEW_KEYS = 100


class Reading(RedisOnlineStore):
    """The part of a store that reads which does no reading yet."""

    _exchange: tuple[Any, Exchange] | None = None
    _plain_exchange: tuple[Any, Exchange] | None = None
    _async_exchange: tuple[Any, AsyncExchange] | None = None

    @cached_property
    def _plans(self) -> Plans:
        return Plans()

    def _stored(
        self,
        config: RepoConfig,
        registry: Any,
        project: str,
        features: Features,
        *,
        full_feature_names: bool,
    ) -> Plan:
        """The plan of a request for stored values.

        Raises:
            FeatureError: some are computed on demand or precomputed.
        """
        plan = self._plans.of(
            config, registry, project, features, full_feature_names=full_feature_names
        )
        if plan is None:
            raise FeatureError(
                "expected features that are stored, found some that are computed on demand or precomputed, "
                "or an entity without a type: ask for stored features, or use get_online_features()"
            )
        return plan

    def plan_of(self, store: FeatureStore, features: Features, *, full_feature_names: bool) -> Plan:
        """The plan of a request for stored values, as `_stored` has it."""
        return self._stored(
            store.config,
            store.registry,
            store.project,
            features,
            full_feature_names=full_feature_names,
        )

    @cached_property
    def _misses(self) -> WeakKeyDictionary[Reads, int]:
        """How many requests of a plan found no row at all."""
        return WeakKeyDictionary()

    def _is_suspect(self, plan: Plan, replies: list[Any]) -> bool:
        """Whether to look for the rows in the other layout: there is none at all, and that for the first time.

        The first request may ask for entities that are in neither: so the second time, the fourth and so on, too.
        """
        if not _are_empty(replies):
            return False
        misses = self._misses[plan.reads] = self._misses.get(plan.reads, 0) + 1
        return misses & (misses - 1) == 0

    def _refuse_misplaced(
        self, config: RepoConfig, plan: Plan, keys: Sequence[Sequence[bytes]], replies: list[Any]
    ) -> None:
        """Refuse rows that are all in the layout that is not read.

        Args:
            config: the repository's.
            plan: the request's.
            keys: of its entities.
            replies: to `in_other_layout`'s commands for them.

        Raises:
            FeatureError: there are some.
        """
        views: list[str] = []
        # Rows that cannot be read there could not be converted either.
        with suppress(SchemaError, DataError):
            found = in_other_layout(config, plan).found(keys, replies)
            views = [
                view.name
                for view, rows in zip(plan.views, found, strict=True)
                if any(stamp is not None for stamp in rows.stamps())
            ]
        if not views:
            return
        # The next request is to be refused as well.
        self._misses.pop(plan.reads, None)
        layout = config.online_store.layout
        other = "feast" if layout == "packed" else "packed"
        raise FeatureError(
            f"feature view {', '.join(views)}: expected rows in the layout {layout!r}, found them in the layout "
            f"{other!r} alone: run `hyperfeast online convert --to {layout}`, or write `layout: {other}` under "
            "online_store in feature_store.yaml"
        )

    def client(self, config: RepoConfig) -> Any:
        """The store's client of redis-py."""
        return self._get_client(config.online_store)

    def exchange(self, config: RepoConfig) -> Exchange:
        """The way to Redis over that client, the same one each time: it keeps its idle connections."""
        if config.online_store.client != RedisClient.glide:
            return self._exchange_with(config)
        with CLIENT_LOCK:
            client = self.client(config)
            if self._plain_exchange is None or self._plain_exchange[0] is not client:
                self._plain_exchange = (client, exchange_of(config.online_store, client))
            return self._plain_exchange[1]

    def _exchange_with(self, config: RepoConfig) -> Exchange:
        """The way to Redis, by the client that is configured."""
        online, glide = config.online_store, None
        with CLIENT_LOCK:
            if online.client == RedisClient.glide:
                glide, client = self._get_glide_sync(), self._get_glide_client(online)
            else:
                client = self._get_client(online)
            if self._exchange is None or self._exchange[0] is not client:
                self._exchange = (client, exchange_of(online, client, glide))
            return self._exchange[1]

    async def _exchange_with_async(self, config: RepoConfig) -> AsyncExchange:
        """The same for an event loop; always by redis-py, as in Feast's own store."""
        client = await self._get_client_async(config.online_store)
        if self._async_exchange is None or self._async_exchange[0] is not client:
            self._async_exchange = (client, async_exchange_of(config.online_store, client))
        return self._async_exchange[1]


def in_other_layout(config: RepoConfig, plan: Plan) -> Reads:
    """A plan's views in the layout that the configuration does not name."""
    other = HashReads if config.online_store.layout == "packed" else PackedReads
    return other(plan.groups, plan.views)


def _are_empty(replies: list[Any]) -> bool:
    """Whether Redis was asked, and has nothing. Where there are rows, the first of them decides."""
    return bool(replies) and all(
        reply is None or (isinstance(reply, list) and all(cell is None for cell in reply))
        for reply in replies
    )


def reader_of(store: FeatureStore) -> Any:
    """The online store of a feature store.

    Raises:
        FeatureError: it is not ours.
    """
    online = store._get_provider().online_store  # noqa: SLF001 - Feast has no public way to it
    if not isinstance(online, Reading):
        raise FeatureError(
            f"expected an online store of type hyperfeast.stores.FastRedisOnlineStore, found "
            f"{type(online).__name__}: change `online_store: type:` in feature_store.yaml"
        )
    return online
