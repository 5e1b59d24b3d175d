"""What the environment says: `HYPERFEAST_*` variables and a `.env` file.

Only the entry points and the composition root read this; everything below them gets values.
"""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_CHECKOUT = Path(__file__).resolve().parents[2]


def _default_home() -> Path:
    return Path.home() / ".local" / "share" / "hyperfeast"


def _default_feature_repo() -> Path:
    """The nearest `feature_repo/` at or above the working folder, else the checkout's own."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if folder.name == "feature_repo" and (folder / "feature_store.yaml").exists():
            return folder
        if (folder / "feature_repo" / "feature_store.yaml").exists():
            return folder / "feature_repo"
    return _CHECKOUT / "feature_repo"


class Settings(BaseSettings):
    """Every setting, with its default."""

    model_config = SettingsConfigDict(
        env_prefix="HYPERFEAST_", env_file=".env", extra="ignore", frozen=True
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
    feature_repo: Path = Field(
        default_factory=_default_feature_repo, description="The Feast repository of the team."
    )
    api_host: str = Field(default="127.0.0.1", description="The address that the API listens on.")
    api_port: int = Field(default=8000, ge=0, le=65535, description="The port of the API.")
    log_level: str = Field(default="warning", description="debug, info, warning or error.")

    @property
    def artifact_root(self) -> str:
        """The folder or address that artifacts are stored under."""
        return self.artifacts or str(self.home / "artifacts")
