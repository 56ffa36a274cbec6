"""Why a request failed, and whether another try may mend it. Nothing here names a URL."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx2

__all__ = [
    "RefusedError",
    "TransientError",
    "explain_error",
    "explain_status",
    "is_strong_date",
]

_TRANSIENT = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
_REASONS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "access is refused without credentials: if the data is gated, accept "
    "its terms on its page and set a token (HF_TOKEN for the Hugging Face hub)",
    HTTPStatus.FORBIDDEN: "access is refused: if the data is gated, accept its terms on its page "
    "and set a token (HF_TOKEN for the Hugging Face hub)",
    HTTPStatus.NOT_FOUND: "there is no such file",
    HTTPStatus.GONE: "the file was removed",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "the proxy wants a user and a password",
}


class TransientError(Exception):
    """What another try may mend.

    Args:
        reason: For people.
        retry_after: Seconds that the server asks to wait.
        unreachable: Whether there was no server to talk to.
    """

    def __init__(
        self, reason: str, *, retry_after: float | None = None, unreachable: bool = False
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.unreachable = unreachable


class RefusedError(Exception):
    """A place won't give what was asked for."""


def explain_status(response: httpx2.Response) -> TransientError | RefusedError:
    """What a status that is none of those that were hoped for means."""
    status = response.status_code
    reason = f"HTTP {status} {response.reason_phrase}".rstrip()
    if status >= 500 or status in _TRANSIENT:
        return TransientError(reason, retry_after=_read_retry_after(response))
    known = _REASONS.get(status)
    return RefusedError(f"{reason}: {known}" if known else f"{reason}, expected 200 OK")


def explain_error(error: httpx2.RequestError) -> TransientError | RefusedError:
    """What it means that there was no answer, or not all of it."""
    if isinstance(error, httpx2.ConnectTimeout):
        return TransientError("it cannot be reached (timed out)", unreachable=True)
    if isinstance(error, (httpx2.ConnectError, httpx2.ProxyError)):
        return TransientError(f"it cannot be reached ({error})", unreachable=True)
    if isinstance(error, httpx2.TimeoutException):
        return TransientError("nothing came for too long")
    if isinstance(error, httpx2.TooManyRedirects):
        return RefusedError("it redirects too often")
    return TransientError(f"the connection was cut ({error})")


def is_strong_date(response: httpx2.Response) -> bool:
    """Whether the file cannot have changed twice in the second of its Last-Modified."""
    modified = _read_date(response.headers.get("last-modified", ""))
    sent = _read_date(response.headers.get("date", ""))
    return modified is not None and sent is not None and sent - modified >= timedelta(seconds=1)


def _read_retry_after(response: httpx2.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    if text.isascii() and text.isdecimal():
        return float(text)
    when = _read_date(text)
    if when is None:
        return None
    now = _read_date(response.headers.get("date", "")) or datetime.now(UTC)
    return max(0.0, (when - now).total_seconds())


def _read_date(text: str) -> datetime | None:
    """A header's date; None if it is none, or one that no calendar has."""
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
