"""What the environment says: `HYPERFEAST_*` variables and a `.env` file.

Only the entry points and the composition root read this; everything below them gets values.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from hyperfeast.errors import UsageError

TIMESCALE = "timescale"
"""What HYPERFEAST_BASELINES calls the database."""

_CHECKOUT = Path(__file__).resolve().parents[2]


def _default_home() -> Path:
    return Path.home() / ".local" / "share" / "hyperfeast"


def _default_feature_repo() -> Path:
    """The nearest Feast repository: the working folder or one above, or `feature_repo/` in it; else our own."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "feature_store.yaml").exists():
            return folder
        if (folder / "feature_repo" / "feature_store.yaml").exists():
            return folder / "feature_repo"
    return _CHECKOUT / "feature_repo"


class Settings(BaseSettings):
    """Every setting, with its default."""

    model_config = SettingsConfigDict(
        env_prefix="HYPERFEAST_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # an input may hold a password
    )

    home: Path = Field(
        default_factory=_default_home,
        description="Where the embedded servers keep their data, and the artifacts lie by default.",
    )
    postgres_dsn: SecretStr | None = Field(
        default=None,
        description="A PostgreSQL to use instead of the embedded one: postgresql://user:password@host/db.",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="A Redis to use instead of the embedded one: redis://:password@host:6379/0.",
    )
    artifacts: str | None = Field(
        default=None, description="Where models are stored: a folder, or an s3:// address."
    )
    dual_write: Path | None = Field(
        default=None,
        description="A folder: what is taken in is also written there, as Parquet.",
    )
    baselines: str = Field(
        default=TIMESCALE,
        description="Where baselines are kept: timescale, a folder, or both during a changeover: FOLDER,timescale "
        "(the first answers).",
    )
    feature_repo: Path = Field(
        default_factory=_default_feature_repo, description="The Feast repository of the team."
    )
    api_host: str = Field(default="127.0.0.1", description="The address that the API listens on.")
    api_port: int = Field(default=8000, ge=0, le=65535, description="The port of the API.")
    cache_seconds: float = Field(
        default=5,
        ge=0,
        allow_inf_nan=False,
        description="How long `serve` may answer from features in its memory, which a write to Redis ends at "
        "once; 0 for never.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="warning", description="How much the log says."
    )

    @property
    def artifact_root(self) -> str:
        """The folder or address that artifacts are stored under."""
        return self.artifacts or str(self.home / "artifacts")

    @property
    def baseline_stores(self) -> tuple[Path | None, ...]:
        """Where baselines are kept, the one that answers first: folders, and None for the database."""
        parts = [part.strip() for part in self.baselines.split(",")]
        return tuple(None if part == TIMESCALE else Path(part).expanduser() for part in parts)

    @field_validator("baselines")
    @classmethod
    def _is_one_or_both(cls, text: str) -> str:
        parts = [part.strip() for part in text.split(",")]
        if (
            not all(parts)
            or len(parts) - parts.count(TIMESCALE) > 1
            or len(set(parts)) < len(parts)
        ):
            raise ValueError(
                "expected timescale, a folder, or both with a comma between them: FOLDER,timescale"
            )
        return text

    @field_validator("home")
    @classmethod
    def _is_absolute(cls, home: Path) -> Path:
        """The same servers from whatever folder one stands in later."""
        return home.expanduser().absolute()

    @field_validator("postgres_dsn")
    @classmethod
    def _is_postgres(cls, dsn: SecretStr | None) -> SecretStr | None:
        if dsn is not None:
            text = dsn.get_secret_value()
            is_url = "://" in text.split("=", 1)[0]
            if not (_is_url(text, "postgresql", "postgres") if is_url else _is_conninfo(text)):
                raise ValueError(
                    "expected postgresql://user:password@host:port/database, special characters of the "
                    "password percent-encoded"
                )
        return dsn

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not _is_url(url.get_secret_value(), "redis", "rediss"):
            raise ValueError(
                "expected redis://:password@host:port/0 (or rediss://), special characters of the password "
                "percent-encoded"
            )
        return url


def load() -> Settings:
    """The settings of this process.

    Raises:
        UsageError: a setting is not usable; the message names it and never shows its value.
    """
    _check_spelling(os.environ)
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = "_".join(map(str, first["loc"])).upper()
        reason = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"HYPERFEAST_{name} is not usable: {reason}") from None


def _check_spelling(environment: Mapping[str, str]) -> None:
    """A misspelled variable would be passed over, and the default would count."""
    known = [f"HYPERFEAST_{name.upper()}" for name in Settings.model_fields]
    for name in environment:
        if name.startswith("HYPERFEAST_") and name not in known:
            meant = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
            if meant:
                raise UsageError(f"{name} is no setting: did you mean {meant[0]}?")


def _is_url(text: str, *schemes: str) -> bool:
    """Whether it is an address of one of the schemes. A raw / or @ in a password moves the host's place."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    return (
        parts.scheme in schemes
        and bool(host)
        and parts.netloc.count("@") <= 1
        and "@" not in parts.path
        and not any(character.isspace() for character in text)
    )


def _is_conninfo(text: str) -> bool:
    from psycopg import ProgrammingError, conninfo

    try:
        return bool(conninfo.conninfo_to_dict(text))
    except ProgrammingError:
        return False
