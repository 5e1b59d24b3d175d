"""Libraries that only some sources need: imported when used, and named when they are not installed."""

import importlib
from types import ModuleType

from hyperfeast.errors import UsageError


def load(module: str, extra: str) -> ModuleType:
    """The module of an optional library.

    Args:
        module: its dotted name.
        extra: the extra of hyperfeast that brings it.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        library = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != library:
            raise
        raise UsageError(
            f"{library} is not installed: run pip install 'hyperfeast[{extra}]' "
            f"(or uv pip install 'hyperfeast[{extra}]')"
        ) from error
