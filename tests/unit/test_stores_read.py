"""What online reads are made of, without a server: the generated twin, Feast's response, plain rows, statuses."""

import importlib.util
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast.stores.online import plan as planning
from hyperfeast.stores.online.answers import OnlineMatrix
from hyperfeast.stores.online.asked import Asked, plainly_asked
from hyperfeast.stores.online.hashes import FoundInHashes, HashReads
from hyperfeast.stores.online.plan import Plan, Plans
from hyperfeast.stores.online.response import Response, entity_rows
from hyperfeast.stores.online.views import KeyGroup, PlannedView, is_plain
from hyperfeast.stores.online.wire import EntityKeys
from unit.feast_values import KINDS, contents, value_bytes

_SCRIPT = Path(__file__).parents[2] / "scripts" / "generate-async"


def _generator() -> Any:
    loader = SourceFileLoader("generate_async", str(_SCRIPT))
    spec = importlib.util.spec_from_loader("generate_async", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_asynchronous_twin_is_up_to_date() -> None:
    ran = subprocess.run([sys.executable, str(_SCRIPT), "--check"], check=False)
    assert ran.returncode == 0, "read.py has changed: run .venv/bin/python scripts/generate-async"


def test_what_waits_is_awaited_and_nothing_else() -> None:
    source = '''"""A module."""


class OnlineReads(Base):
    def read(self, key):
        return parsed(self._deeper(key), key)

    def _deeper(self, key):
        exchange = self._exchange_with(key)
        return exchange.send([key])

    def pure(self, key):
        return parsed(key)
'''
    assert _generator().generate(source).partition("class ")[2].splitlines() == [
        "AsyncOnlineReads(Base):",
        "    async def read_async(self, key):",
        "        return parsed(await self._deeper_async(key), key)",
        "",
        "    async def _deeper_async(self, key):",
        "        exchange = await self._exchange_with_async(key)",
        "        return await exchange.send([key])",
        "",
        "    def pure(self, key):",
        "        return parsed(key)",
    ]


def _view(kinds: list[ValueType]) -> PlannedView:
    names = tuple(f"f{at}" for at in range(len(kinds)))
    schema = tuple(zip(names, kinds, strict=True))
    return PlannedView("stats", "stats", names, tuple(kinds), names, schema, None)


def _plan(view: PlannedView) -> Plan:
    group = KeyGroup(EntityKeys("test", {"id": ValueType.STRING}), ("id",), (0,))
    order = tuple((0, at) for at in range(len(view.features)))
    types = {"id": ValueType.STRING}
    return Plan((view,), (group,), HashReads([group], [view]), order, types, frozenset(types), {})


_STAMPS = st.one_of(
    st.none(),
    st.builds(
        Timestamp,
        seconds=st.integers(-62_135_596_800, 253_402_300_000),
        nanos=st.integers(0, 999_999_999),
    ).map(lambda one: bytes(one.SerializeToString())),
)


@st.composite
def _stored(draw: st.DrawFn) -> tuple[PlannedView, list[list[bytes | None]]]:
    """A view of any types, and what Redis answers for some entities: values, then the event time."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    cells = [
        st.one_of(
            contents(kind).map(lambda one, kind=kind: value_bytes(kind, one)),
            st.none(),
            st.just(b""),
        )
        for kind in kinds
    ]
    rows = draw(st.lists(st.tuples(*cells, _STAMPS).map(list), min_size=1, max_size=4))
    return _view(kinds), rows


def _feasts(view: PlannedView, rows: list[list[bytes | None]]) -> list[tuple[Any, Any]]:
    names = [*view.features, "_ts:stats"]
    return [RedisOnlineStore()._get_features_for_entity(row, "stats", names) for row in rows]


@given(_stored())
def test_a_views_rows_are_what_feast_makes_of_the_same_bytes(
    stored: tuple[PlannedView, list[list[bytes | None]]],
) -> None:
    view, rows = stored
    found = FoundInHashes(view, rows, 0, len(view.features))
    assert entity_rows(view.features, found.values(), found.stamps()) == _feasts(view, rows)


@given(_stored())
def test_a_response_holds_what_feast_makes_of_the_same_bytes(
    stored: tuple[PlannedView, list[list[bytes | None]]],
) -> None:
    view, rows = stored
    found = FoundInHashes(view, rows, 0, len(view.features))
    names = [f"driver {at}" * at for at in range(len(rows))]
    asked = Asked({"id": names}, len(rows), [[]], [None])
    response = Response(_plan(view), asked, [found])
    said = repr(response.to_dict())
    proto = response.proto
    assert said == repr(OnlineResponse(proto, dict(_plan(view).feature_types)).to_dict())
    assert list(proto.metadata.feature_names.val) == ["id", *view.features]
    assert [one.string_val for one in proto.results[0].values] == names
    for at, (moment, values) in enumerate(_feasts(view, rows)):
        expected = Timestamp()
        expected.FromDatetime(moment)
        for feature, column in zip(view.features, proto.results[1:], strict=True):
            assert column.values[at] == values[feature]
            assert column.statuses[at] == FieldStatus.PRESENT
            assert column.event_timestamps[at] == expected


@pytest.mark.parametrize(
    ("value", "kind", "plain"),
    [
        (1, ValueType.INT64, True),
        (0, ValueType.INT64, True),
        (-(2**63), ValueType.INT64, True),
        (2**63, ValueType.INT64, False),
        (2**31, ValueType.INT32, False),
        (True, ValueType.INT64, False),
        (1.0, ValueType.INT64, False),
        ("1", ValueType.INT64, False),
        (None, ValueType.INT64, False),
        (np.int64(1), ValueType.INT64, False),
        (Value(int64_val=1), ValueType.INT64, False),
        ("a", ValueType.STRING, True),
        ("", ValueType.STRING, False),
        (1, ValueType.STRING, False),
        (b"a", ValueType.BYTES, False),
        (1, None, False),
    ],
    ids=str,
)
def test_plain_values_are_those_that_feast_would_not_convert(
    value: Any, kind: Any, plain: bool
) -> None:
    assert is_plain([value], kind) is plain


def test_entities_are_read_once_each() -> None:
    plan = _plan(_view([ValueType.DOUBLE]))
    asked = plainly_asked(plan, [{"id": one} for one in ("a", "b", "a")])
    assert asked is not None
    assert [len(keys) for keys in asked.keys] == [2]
    assert asked.indexes[0] is not None
    assert asked.indexes[0].tolist() == [0, 1, 0]
    assert plan.reads.commands(asked.keys).replies == 2


def test_statuses_are_feasts_numbers() -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    times = np.array(
        [["2026-03-01T11:00", "2026-03-01T11:00"], ["2026-02-01", "NaT"]], "datetime64[us]"
    )
    found = OnlineMatrix(
        values=np.array([[1.0, np.nan, 0.0], [1.0, 1.0, np.nan]]),
        features=("a", "b", "c"),
        event_timestamps=times,
        views=("first", "second"),
        view_of=np.array([0, 0, 1]),
        ttls=(timedelta(days=1), None),
    )
    assert found.statuses(noon).tolist() == [[1, 2, 1], [4, 4, 3]]


@pytest.mark.parametrize("read_anew", [True, False])
def test_a_plan_of_a_registry_that_was_read_anew_meanwhile_is_not_kept(
    read_anew: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = SimpleNamespace(
        is_cache_valid=lambda: True, cached_registry_proto_created=datetime(2026, 1, 1, tzinfo=UTC)
    )
    resolved: list[int] = []

    def resolving(*_: Any) -> Any:
        resolved.append(1)
        if read_anew and len(resolved) == 1:
            registry.cached_registry_proto_created += timedelta(seconds=1)
        # Something on demand: Feast has to answer, and even that is kept.
        return [], [object()], {}, {}, set(), [], None, [], None

    monkeypatch.setattr(planning, "_get_cached_request_context", resolving)
    config: Any = SimpleNamespace(online_store=SimpleNamespace(layout="feast"))
    plans = Plans()
    for _ in range(3):
        assert plans.of(config, registry, "p", ["view:f"], full_feature_names=False) is None
    assert len(resolved) == (2 if read_anew else 1)
