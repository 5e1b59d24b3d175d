"""What ingestion says of a file and of the command's options, said of a request: its rows and its fields.

The errors of ingestion are written for a person at a shell. Whoever pushes rows has no options and no file:
an answer names what can be changed in the request.
"""

import re

from hyperfeast.errors import HyperfeastError

# The first ones are whole phrases: a request cannot say what a column is called, it can only call it so.
_PHRASES = [
    (re.compile(r"Map what it calls otherwise: --column (\w+)=NAME"), r"Call the column \1"),
    (re.compile(r"could each be the column (\w+): say which with --column .*"),
     r"could each be the column \1: send one of them"),
    (re.compile(r"or give --symbol"), "or give symbol once for all rows"),
    (re.compile(r"the file has it too"), "the rows have it, too"),
    (re.compile(r"the file has "), "the rows have "),
]  # fmt: skip
OPTIONS = {
    "--calendar": "calendar",
    "--column": "column",
    "--symbol": "symbol",
    "--tf": "timeframe",
}
"""Option of `hyperfeast ingest` -> the field of a request that says the same."""

_OPTION = re.compile(rf"(?:{'|'.join(OPTIONS)})(?![\w-])")


def of_request(error: HyperfeastError) -> HyperfeastError:
    """The same error, in the words of whoever sent a request."""
    message = str(error)
    for pattern, words in _PHRASES:
        message = pattern.sub(words, message)
    return type(error)(_OPTION.sub(lambda found: OPTIONS[found[0]], message))
