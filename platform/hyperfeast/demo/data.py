"""Where the demo's data are: two files of the package `bokeh-sampledata`, and one of ours.

`stocks.csv.gz`: AAPL, FB, GOOG, IBM, MSFT, daily, 2000-03 to 2013-03, unadjusted. Its column
`Adj Close` is left alone: it divides every price by the splits that came later, so it knows the future.
`CGM.csv.gz`: a glucose sensor every five minutes for 200 days of 2010. Its times have no zone, and it
is not recorded which was meant: they are taken as UTC.
"""

import importlib.util
from pathlib import Path

from hyperfeast.errors import UsageError

CALENDAR = "XNYS"
METRIC = "glucose"
DEVICE = "cgm"
# The wearer is not named in the data; this stands for them.
USER = "6f1c6f0e-3a55-4f0b-9b5c-0c6a3f1d2e4b"
SOURCE = "bokeh-sampledata 2026.1"


def stocks() -> Path:
    """Daily bars of five stocks."""
    return _sample("stocks.csv.gz")


def glucose() -> Path:
    """Readings of one glucose sensor."""
    return _sample("CGM.csv.gz")


def corporate_actions() -> Path:
    """The three splits within the bars' years."""
    return Path(__file__).with_name("corporate_actions.csv")


def _sample(name: str) -> Path:
    """A file of the package, which is found but not imported: importing it looks for downloads."""
    spec = importlib.util.find_spec("bokeh_sampledata")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "_data" / name
        if path.exists():
            return path
    raise UsageError(
        "the demo's data are not installed: run scripts/demo, or pip install 'hyperfeast[demo]'"
    )
