"""Where in a module a declaration went wrong: the set, the feature and the line."""

import ast
from collections.abc import Iterator
from pathlib import Path
from traceback import walk_tb


def where(error: BaseException, path: Path) -> str:
    """The line and, as far as the source says, the feature set and the feature of an error.

    An indicator is made before the feature that it is for, so that its error knows of neither.

    Args:
        error: what came out of importing the module.
        path: of the module.

    Returns:
        `line 12, feature set momentum, feature rsi_14`; empty for an error from outside the module.
    """
    lines = [
        line
        for frame, line in walk_tb(error.__traceback__)
        if frame.f_code.co_filename == str(path)
    ]
    if not lines:
        return ""
    names = [
        f"{words} {name}"
        for function, words in (("FeatureSet", "feature set"), ("Feature", "feature"))
        for name in _named(path, function, lines[-1])
    ]
    return ", ".join([f"line {lines[-1]}", *names])


def _named(path: Path, function: str, line: int) -> Iterator[str]:
    """The name that the call of a function which spans a line is given, if it is written there."""
    for call in _calls(path, function):
        if not call.lineno <= line <= (call.end_lineno or call.lineno):
            continue
        written = [keyword.value for keyword in call.keywords if keyword.arg == "name"]
        for name in [*written, *call.args[:1]]:
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value


def _calls(path: Path, function: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == function
        ):
            yield node
