"""Every answer of Yahoo's chart service, judged before yfinance reads it.

yfinance takes a session of curl_cffi from its caller. On such a session the requests for charts are watched
here: what may pass becomes `Trouble` with what Retry-After asks for, which yfinance would lose; a broken body
never reaches yfinance's cache of answers; an unknown symbol is known from the first answer. The
requests for cookies, which yfinance can do without, are left alone.
"""

from collections.abc import Callable
from typing import Any

from hyperfeast.errors import NoData
from hyperfeast.sources.extras import load
from hyperfeast.sources.retry import Pace, Trouble, may_pass, retry_after_s

_CHART = "/v8/finance/chart/"
_NOT_FOUND = 404


def watched(session: Any | None, pace: Pace) -> Any:
    """A session whose answers are watched.

    Args:
        session: of curl_cffi; one that looks like a browser, as yfinance's own does, if not given.
        pace: which the requests for charts keep.

    Raises:
        UsageError: curl_cffi is not installed.
    """
    requests = load("curl_cffi.requests", "yfinance")
    if session is None:
        session = requests.Session(impersonate="chrome")
    send = session.request

    def request(method: str, url: str, **options: Any) -> Any:
        if _CHART not in url:
            return send(method=method, url=url, **options)
        pace.wait()
        return _judged(lambda: send(method=method, url=url, **options), requests, pace)

    session.request = request
    return session


def _judged(send: Callable[[], Any], requests: Any, pace: Pace) -> Any:
    try:
        answer = send()
    except requests.exceptions.Timeout as error:
        raise Trouble("no answer in time") from error
    except requests.exceptions.RequestException as error:
        raise Trouble(f"the connection broke ({_first_line(error)})") from error
    status = answer.status_code
    if may_pass(status):
        wait = retry_after_s(answer.headers.get("Retry-After"))
        pace.hold(wait or 0.0)
        raise Trouble(f"HTTP {status}", wait)
    try:
        chart = answer.json()["chart"]
    except (ValueError, TypeError, KeyError) as error:
        if not answer.ok:
            return answer
        raise Trouble(f"HTTP {status} with a body that is no whole chart") from error
    if status == _NOT_FOUND:
        raise NoData(str((chart.get("error") or {}).get("description") or "not found"))
    return answer


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
