"""Every error that hyperfeast raises, in one tree.

HyperfeastError
├── UsageError             what was asked for does not exist or makes no sense
├── DataError              the content of a file or a batch cannot be taken
│   ├── RowsRefused        some rows went to quarantine; the others are in
│   ├── IdempotencyConflict  a key was used for other content
│   └── NoData             a source does not have that symbol, or not that far back
├── SourceError            a source refuses, or answers what cannot be read
│   └── SourceUnavailable  it did not answer within the retries' bounds (retryable)
├── ServerError            PostgreSQL or Redis
│   ├── ServerUnreachable  nobody answers (retryable)
│   ├── Contended          the transaction lost against another one (retryable)
│   ├── AccessDenied       somebody answers, and says no
│   ├── ServerStartFailed  an embedded server does not come up
│   └── QueryFailed        a statement or a command was refused
├── SchemaError            the database's schema and this version do not fit
├── FeatureError           a feature set's declaration, or its table, is wrong
├── TrainingError          a model cannot be trained from what is there
└── ModelError             a model is absent, or its artifact is not what was registered
    ├── NoModel
    └── ArtifactDamaged

A message says what was expected, what was found and what to do. `retryable` says whether the
same call can succeed later with nothing changed by the caller.
"""


class HyperfeastError(Exception):
    """Anything that hyperfeast itself reports."""

    retryable = False


class UsageError(HyperfeastError):
    """What was asked for does not exist or makes no sense."""


class DataError(HyperfeastError):
    """The content of a file or a batch cannot be taken."""


class RowsRefused(DataError):
    """Some rows broke a rule and went to quarantine; the others are in."""


class IdempotencyConflict(DataError):
    """The same idempotency key was used for other content."""


class NoData(DataError):
    """A source does not have that symbol, or not that far back."""


class SourceError(HyperfeastError):
    """A source of data refused a request, or its answer cannot be read."""


class SourceUnavailable(SourceError):
    """A source did not answer within the bounds of the retries."""

    retryable = True


class ServerError(HyperfeastError):
    """PostgreSQL or Redis did not do what was asked."""


class ServerUnreachable(ServerError):
    """No server answers at the address."""

    retryable = True


class Contended(ServerError):
    """The transaction lost against another one, and was undone."""

    retryable = True


class AccessDenied(ServerError):
    """The server refused the user or the password."""


class ServerStartFailed(ServerError):
    """An embedded server does not come up."""


class QueryFailed(ServerError):
    """A server refused a statement or a command."""


class SchemaError(HyperfeastError):
    """The database's schema and this version of hyperfeast do not fit."""


class FeatureError(HyperfeastError):
    """A feature set's declaration, or the table behind it, is wrong."""


class TrainingError(HyperfeastError):
    """A model cannot be trained from what is there."""


class ModelError(HyperfeastError):
    """A model is absent, or is not what was registered."""


class NoModel(ModelError):
    """No active model of that name."""


class ArtifactDamaged(ModelError):
    """The artifact's checksum is not the registered one."""
