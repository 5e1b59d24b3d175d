"""The demo's report: one HTML file that explains itself, and needs nothing else to be read.

`content` says what a report holds, `readings` puts it into sentences, `figures` into charts,
`palette` into colors, `frame` is what every page has in common, and `page` writes the file; `quality` is the
report of the data's quality, which is such a page, too.
"""

from hyperfeast.reports.content import (
    DemoReport,
    EquityCurve,
    PredictionRow,
    RocCurve,
    ScoreRow,
    ZScoreSeries,
)
from hyperfeast.reports.page import write_report

__all__ = [
    "DemoReport",
    "EquityCurve",
    "PredictionRow",
    "RocCurve",
    "ScoreRow",
    "ZScoreSeries",
    "write_report",
]
