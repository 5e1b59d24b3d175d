"""What Feast and the engine hand over for writing, as rows: Arrow batches, and Feast's own tuples."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.utils import _validate_vector_field_lengths, make_tzaware
from feast.value_type import ValueType

from hyperfeast.errors import DataError
from hyperfeast.stores.online.encode import ArrayOfBytes, Column, value_bytes
from hyperfeast.stores.online.rows import NEVER, UNKNOWN, Micros, Rows
from hyperfeast.stores.online.wire import EntityKeys

# Entity key, feature -> value, event timestamp, created timestamp: as Feast passes them.
FeastRow: TypeAlias = tuple[EntityKey, dict[str, Value], datetime, datetime | None]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Reader:
    """Rows of a view out of Arrow batches.

    Attributes:
        view: its name, for messages.
        keys: of its entities.
        features: name and type of each.
        timestamp_field: the column of event times; naive ones are UTC.
        created_field: the column of the times of recording, if there is one.
    """

    view: FeatureView
    keys: EntityKeys
    features: tuple[tuple[str, ValueType], ...]
    timestamp_field: str
    created_field: str | None

    @classmethod
    def of(
        cls,
        config: RepoConfig,
        view: FeatureView,
        timestamp_field: str,
        created_field: str | None,
    ) -> "Reader":
        """For a view of a registry.

        Raises:
            FeatureError: the type of a join key cannot be in a key.
        """
        return cls(
            view,
            EntityKeys(
                config.project,
                {field.name: field.dtype.to_value_type() for field in view.entity_columns},
                config.entity_key_serialization_version,
            ),
            tuple((field.name, field.dtype.to_value_type()) for field in view.features),
            timestamp_field,
            created_field,
        )

    def rows(self, batch: pa.RecordBatch) -> Rows:
        """A batch's rows.

        Raises:
            DataError: a column or a value is missing, or is not of its declared type.
        """
        batch = self._with_dummy_entity(batch)
        self._refuse_missing_columns(batch)
        _validate_vector_field_lengths(batch, self.view)
        try:
            keys = self.keys.of_columns({name: batch.column(name) for name in self.keys.names})
            event = _moments(self.timestamp_field, batch.column(self.timestamp_field))
            self._refuse_timeless(event)
            values = {name: _values(name, batch.column(name), kind) for name, kind in self.features}
            return Rows(keys, event, self._recorded(batch), values)
        except DataError as error:
            raise DataError(f"feature view {self.view.name!r}: {error}") from error

    def _with_dummy_entity(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A view without entities has one row, whose key Feast has given a name."""
        if DUMMY_ENTITY_ID not in self.keys.names or DUMMY_ENTITY_ID in batch.schema.names:
            return batch
        column = pa.array([DUMMY_ENTITY_VAL] * batch.num_rows, pa.string())
        return batch.append_column(DUMMY_ENTITY_ID, column)

    def _refuse_missing_columns(self, batch: pa.RecordBatch) -> None:
        wanted = [*self.keys.names, self.timestamp_field, *(name for name, _ in self.features)]
        wanted += [self.created_field] if self.created_field else []
        missing = [name for name in wanted if name not in batch.schema.names]
        if missing:
            raise DataError(
                f"feature view {self.view.name!r}: no column {', '.join(map(repr, missing))} among "
                f"{', '.join(map(repr, batch.schema.names))}: add it to the source, or map its name"
            )

    def _refuse_timeless(self, event: Micros) -> None:
        timeless = int((event == NEVER).sum())
        if timeless:
            raise DataError(
                f"column {self.timestamp_field!r}: {timeless:,} of {len(event):,} rows have no event "
                "time, so that nobody knows from when they hold: filter them out of the source"
            )

    def _recorded(self, batch: pa.RecordBatch) -> Micros:
        if self.created_field is None:
            return np.full(batch.num_rows, UNKNOWN)
        return _moments(self.created_field, batch.column(self.created_field))


def rows_of_feast(config: RepoConfig, data: Sequence[FeastRow]) -> Iterator[Rows]:
    """Feast's tuples as rows: those with the same features together, in their order."""
    alike: dict[tuple[str, ...], list[FeastRow]] = {}
    for row in data:
        alike.setdefault(tuple(row[1]), []).append(row)
    for features, rows in alike.items():
        version = config.entity_key_serialization_version
        project = config.project.encode()
        keys = [serialize_entity_key(row[0], version) + project for row in rows]
        yield Rows(
            _bytes(keys),
            np.array([_micros(row[2]) for row in rows]),
            np.array([UNKNOWN if pd.isnull(row[3]) else _micros(row[3]) for row in rows]),
            {name: _bytes(row[1][name].SerializeToString() for row in rows) for name in features},
        )


def _values(name: str, column: Column, kind: ValueType) -> ArrayOfBytes:
    try:
        return value_bytes(column, kind)
    except DataError as error:
        raise DataError(f"feature {name!r}: {error}") from error


def _moments(name: str, column: Column) -> Micros:
    """Times as microseconds since 1970; NEVER where there is none."""
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        raise DataError(
            f"column {name!r} holds {column.type}: expected timestamps: cast it in the source"
        )
    # NumPy's missing time is the smallest integer: NEVER.
    return column.to_numpy(zero_copy_only=False).astype("datetime64[us]").astype(np.int64)


def _micros(moment: datetime | None) -> int:
    return int((make_tzaware(moment) - _EPOCH) // _MICROSECOND)


def _bytes(values: Iterable[bytes]) -> ArrayOfBytes:
    array: ArrayOfBytes = pa.array(list(values), pa.large_binary())
    return array
