"""What both ways of reading, blocking and not, share: plans, and how to reach Redis."""

from functools import cached_property
from typing import Any

from feast import FeatureStore, RepoConfig
from feast.infra.online_stores.redis import RedisClient, RedisOnlineStore

from hyperfeast.errors import FeatureError
from hyperfeast.stores.online.exchange import (
    AsyncExchange,
    Exchange,
    async_exchange_of,
    exchange_of,
)
from hyperfeast.stores.online.plan import Features, Plan, Plans


class Reading(RedisOnlineStore):
    """The part of a store that reads which does no reading yet."""

    _exchange: tuple[Any, Exchange] | None = None
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

    def client(self, config: RepoConfig) -> Any:
        """The store's client of redis-py."""
        return self._get_client(config.online_store)

    def exchange(self, config: RepoConfig) -> Exchange:
        """The way to Redis over that client."""
        return exchange_of(config.online_store, self.client(config))

    def _exchange_with(self, config: RepoConfig) -> Exchange:
        """The way to Redis, by the client that is configured."""
        online, glide = config.online_store, None
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
