"""Configuration of the Feast plugins: mistakes are named with their remedy, secrets are never shown."""

from typing import Any, ClassVar

import pytest
from feast import RepoConfig
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres import (
    PostgreSQLOfflineStoreConfig,
)
from feast.infra.online_stores.redis import RedisOnlineStoreConfig
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, StrictStr

from hyperfeast.errors import UsageError
from hyperfeast.stores.configuration import PluginConfig
from hyperfeast.stores.connection import redis_config
from hyperfeast.stores.online.store import FastRedisOnlineStoreConfig

SECRET = "p4ss-w0rd-n0b0dy-may-read"
WRITTEN = {"host": "db", "database": "d", "user": "u", "password": SECRET}


class FirstOfflineStoreConfig(PluginConfig, PostgreSQLOfflineStoreConfig):
    section: ClassVar[str] = "offline_store"
    type: StrictStr = "some.FirstOfflineStore"
    memory_limit_mb: int = Field(1024, gt=0)


class SecondOnlineStoreConfig(PluginConfig, RedisOnlineStoreConfig):
    section: ClassVar[str] = "online_store"
    type: StrictStr = "some.SecondOnlineStore"


def test_a_right_section_is_taken_with_its_dotted_path() -> None:
    config = FirstOfflineStoreConfig(type="else.FirstOfflineStore", **WRITTEN)

    assert (config.type, config.memory_limit_mb) == ("else.FirstOfflineStore", 1024)
    assert config.password == SECRET


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("memory_limit", "memory_limit_mb"),
        ("sslmod", "sslmode"),
        ("Memory_Limit_MB", "memory_limit_mb"),
        ("schema", "db_schema"),
    ],
)
def test_a_wrong_key_is_refused_with_the_nearest_right_one(key: str, nearest: str) -> None:
    with pytest.raises(UsageError) as refused:
        FirstOfflineStoreConfig(**WRITTEN, **{key: SECRET})

    assert f"offline_store of feature_store.yaml: there is no key {key!r}" in str(refused.value)
    assert f"did you mean {nearest!r}?" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_key_like_no_other_is_refused_with_all_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"no key 'zzzz': remove it; The keys are .*connection_st"):
        SecondOnlineStoreConfig(zzzz=1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({**WRITTEN, "port": SECRET}, "port: Input should be a valid integer"),
        ({**WRITTEN, "memory_limit_mb": 0}, "memory_limit_mb: Input should be greater than 0"),
        ({"password": SECRET, "user": "u", "database": "d"}, "host: Field required"),
        ({**WRITTEN, "password": [SECRET]}, "password: Input should be a valid string"),
    ],
)
def test_a_value_that_does_not_fit_is_named_and_not_quoted(
    values: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        FirstOfflineStoreConfig(**values)

    assert said in str(refused.value)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "localhost:abc",
            "found 'localhost:abc' as its part 1: write an address such as localhost",
        ),
        ("localhost", "found 'localhost' as its part 1"),
        ("", "found '' as its part 1"),
        ("h:6379,db=0,sll=true", "found the unknown option 'sll': did you mean 'ssl'?"),
        (
            "h:6379,xyzzy_frobnicate=1",
            "found an unknown option as its part 2: remove it; the usual",
        ),
        ("db=0", "found no address: add one"),
        (f"redis://:{SECRET}@localhost:6379,db=0", "found a URL as its part 1: leave the scheme"),
        (f"redis://:x={SECRET}@localhost:6379", "found a URL as its part 1"),
        (f"h:6379,password=a,{SECRET}", "found something else as its part 3"),
    ],
)
def test_a_connection_string_that_feast_cannot_use_is_named(written: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        FastRedisOnlineStoreConfig(connection_string=written)

    assert "connection_string: expected host:port,option=value" in str(refused.value)
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "written",
    [
        "localhost:6379",
        "password=hunter2,localhost:6379",
        "a:1,b:2,skip_full_coverage_check=true,ssl=true",
        redis_config("rediss://u:p%2C%3Dw@h:1/3?ssl_cert_reqs=none")["connection_string"],
        redis_config("unix:///run/redis.sock?db=2")["connection_string"],
    ],
)
def test_a_right_connection_string_is_taken(written: str) -> None:
    assert FastRedisOnlineStoreConfig(connection_string=written).connection_string.startswith(
        written
    )


def test_no_secret_is_in_a_repr() -> None:
    offline = FirstOfflineStoreConfig(**WRITTEN)
    online = SecondOnlineStoreConfig(connection_string=f"redis:6379,password={SECRET}")

    for shown in (repr(offline), str(offline), repr(online), str(online), f"{online}"):
        assert SECRET not in shown
    assert "host='db'" in repr(offline)


def test_feast_itself_passes_the_error_on_without_the_file() -> None:
    """Feast checks the section when it loads the file; its own error would quote all of that."""
    path = f"{__name__}.FirstOfflineStore"
    with pytest.raises(UsageError) as refused:
        RepoConfig(
            project="p",
            registry="r.db",
            offline_store={"type": path, **WRITTEN, "pasword": SECRET},
        )

    assert "did you mean 'password'?" in str(refused.value)
    assert SECRET not in str(refused.value)


class FirstOfflineStore:
    """Feast looks for a configuration class by the name of the store's."""


@given(st.text(min_size=1, max_size=30))
def test_every_key_that_is_none_is_refused(key: str) -> None:
    if key in FirstOfflineStoreConfig.model_fields:
        return
    with pytest.raises(UsageError, match="there is no key"):
        FirstOfflineStoreConfig(**WRITTEN, **{key: 1})
