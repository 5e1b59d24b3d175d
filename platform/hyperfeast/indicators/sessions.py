"""Features of the trading calendar: which session of its instrument a bar belongs to.

They read columns that `features.bars.with_sessions` adds from each instrument's own calendar, and say
nothing of sessions to come: a market closes for a day of mourning on a day's notice, and a calendar of
today knows of it all along.
"""

from hyperfeast.errors import FeatureError
from hyperfeast.indicators.rule import Rule

SESSION_FEATURES = {
    "weekday": "Day of the week of the bar's session: 1 Monday to 7 Sunday.",
    "day_of_month": "Day of the month of the bar's session: 1 to 31.",
    "month": "Month of the bar's session: 1 to 12.",
    "session_of_month": "How many sessions its month has had, its own included.",
    "session_of_week": "How many sessions its week has had, its own included.",
    "days_since_session": "Days from the session before it: 1, 3 over a weekend, more over holidays.",
    "time_of_day": "Hours since midnight, on the exchange's own clock, when the bar was known.",
    "hours_of_session": "Hours from the session's opening to when the bar was known.",
}
"""What `session` can give, and what it means."""


def session(what: str) -> Rule:
    """A feature of the instrument's own sessions, by its name in `SESSION_FEATURES`.

    Raises:
        FeatureError: there is none of that name; the message lists them.
    """
    if what not in SESSION_FEATURES:
        raise FeatureError(
            f"there is no calendar feature {what!r}: take one of {', '.join(SESSION_FEATURES)}"
        )
    name = f"session_{what}"
    return Rule(f"session({what})", 0, 0, lambda bars: bars[name], frozenset({name}))
