"""A view's rows on their way to Redis: their keys, their times, and their values encoded."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hyperfeast.stores.online.encode import ArrayOfBytes

Micros: TypeAlias = NDArray[np.int64]

# When a row was recorded, where its source does not say: then a row of an equal event time is applied.
UNKNOWN = int(np.iinfo(np.int64).max)
# Where the source has a column for it and nothing in it: any other row of that event time is newer.
NEVER = int(np.iinfo(np.int64).min)


@dataclass(frozen=True)
class Rows:
    """Rows of one view.

    Attributes:
        keys: the serialized key of each row's entity.
        event: microseconds since 1970, UTC.
        recorded: the same; UNKNOWN or NEVER where there is none.
        values: feature -> its serialized values.
    """

    keys: ArrayOfBytes
    event: Micros
    recorded: Micros
    values: Mapping[str, ArrayOfBytes]

    def __len__(self) -> int:
        return len(self.event)

    def take(self, places: NDArray[Any]) -> "Rows":
        """The rows at these places."""
        indices = pa.array(places)
        values = {name: column.take(indices) for name, column in self.values.items()}
        return Rows(self.keys.take(indices), self.event[places], self.recorded[places], values)

    def newest(self) -> "Rows":
        """The newest row of each entity; of equals the last."""
        entities = self.keys.dictionary_encode()
        if len(entities.dictionary) == len(self):
            return self
        codes = entities.indices.to_numpy()
        order = np.lexsort((self.recorded, self.event, codes))
        sorted_codes = codes[order]
        is_last = np.ones(len(order), np.bool_)
        is_last[:-1] = sorted_codes[1:] != sorted_codes[:-1]
        return self.take(np.sort(order[is_last]))

    def pieces(self, size: int) -> Iterator["Rows"]:
        """The rows, so many at a time."""
        for start in range(0, len(self), size):
            stop = start + size
            values = {name: column[start:stop] for name, column in self.values.items()}
            yield Rows(
                self.keys[start:stop], self.event[start:stop], self.recorded[start:stop], values
            )
