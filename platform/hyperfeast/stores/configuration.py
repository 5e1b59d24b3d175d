"""What the configuration classes of all our Feast plugins have in common: they name a mistake, and keep secrets.

Feast hands a plugin its section of `feature_store.yaml`. Pydantic's own answer to a wrong key quotes
what was written there, passwords included, and Feast wraps it in one that quotes the whole file.
An error that is not pydantic's passes through both as it is.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, ClassVar

from feast.repo_config import FeastConfigBaseModel
from pydantic import ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from hyperfeast.errors import UsageError

_SECRET = frozenset({"password", "connection_string"})


class PluginConfig(FeastConfigBaseModel):
    """Base, written before Feast's own, of a plugin's configuration.

    `class TimescaleOfflineStoreConfig(PluginConfig, PostgreSQLOfflineStoreConfig)`: a key that the
    class lacks is refused with the nearest one that it has, a value that does not fit with what was
    expected, neither with the value; and `repr` leaves secrets out.

    Raises:
        UsageError: at construction, for a wrong key, a missing one or a value that does not fit.
    """

    # What is wrong is said; the value that was written may be a secret.
    model_config = ConfigDict(hide_input_in_errors=True)

    section: ClassVar[str]
    """The section of `feature_store.yaml` that holds this configuration."""

    @model_validator(mode="wrap")
    @classmethod
    def _named_mistakes(cls, values: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        if isinstance(values, dict):
            cls._refuse_unknown(values)
        try:
            return handler(values)
        except ValidationError as error:
            raise UsageError(f"{cls._where()}: {_mistakes(error)}: correct it there") from None

    @classmethod
    def _refuse_unknown(cls, values: Iterable[Any]) -> None:
        known = list(cls.model_fields)
        for key in values:
            if key not in known:
                close = get_close_matches(str(key).lower(), known, n=1, cutoff=0.5)
                hint = f"did you mean {close[0]!r}?" if close else "remove it;"
                raise UsageError(
                    f"{cls._where()}: there is no key {key!r}: {hint} "
                    f"The keys are {', '.join(sorted(known))}"
                )

    @classmethod
    def _where(cls) -> str:
        return f"{cls.section} of feature_store.yaml"

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [(name, value) for name, value in super().__repr_args__() if name not in _SECRET]


def _mistakes(error: ValidationError) -> str:
    """Every key that does not fit and why, in one line, without what was written."""
    return "; ".join(
        ": ".join([".".join(map(str, found["loc"])) or "the section", found["msg"]])
        for found in error.errors(include_url=False, include_input=False, include_context=False)
    )
