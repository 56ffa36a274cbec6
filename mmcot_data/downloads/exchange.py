"""One request for a file or for the rest of it, and what the answer says."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx2

from mmcot_data.downloads.addresses import Place, shown_url
from mmcot_data.downloads.channel import Channel
from mmcot_data.downloads.partial_file import Origin

__all__ = ["Answer", "RefusedError", "TransientError", "ask"]

_MOST_REDIRECTS = 10
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
    """A place won't give the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A part of a file, or all of it."""

    start: int
    """Place of the body's first byte in the file."""
    total: int | None
    """Bytes of the whole file, if it is told."""
    is_delimited: bool
    """Whether a body that was cut can be told from a whole one."""
    origin: Origin
    content_type: str
    content_encoding: str
    response: httpx2.Response

    def chunks(self, channel: Channel) -> Iterator[bytes]:
        """The body as it arrives.

        Raises:
            StoppedError: If the caller of all this wants no more.
        """
        chunks = self.response.iter_raw()
        while True:
            with channel.waiting():
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk


@contextmanager
def ask(
    client: httpx2.Client,
    place: Place,
    channel: Channel,
    *,
    headers: Mapping[str, str],
    start: int = 0,
    if_range: str | None = None,
    past_caches: bool = False,
) -> Iterator[Answer]:
    """Send a request; the answer can be read in the block.

    Args:
        client: With its time limits.
        place: Where the file is.
        channel: Tells when to stop.
        headers: For the place's own server alone, none that a redirect leads to.
        start: First byte that is wanted.
        if_range: Validator of the bytes that are there.
        past_caches: Whether to ask for what the server itself has.

    Raises:
        TransientError: If the server can't be reached or is busy, or the connection was cut; also
            for what happens in the block.
        RefusedError: If the server has no such file, or won't give it.
        StoppedError: If the caller of all this wants no more.
    """
    wishes = {"Accept-Encoding": "identity"}  # lengths and ranges are of the file's own bytes
    if start:
        wishes["Range"] = f"bytes={start}-"
        if if_range is not None:
            wishes["If-Range"] = if_range
    if past_caches:
        wishes["Cache-Control"] = "no-cache"
    try:
        response = _send(client, place, channel, headers, wishes)
        try:
            yield _read_answer(response, place, start)
        finally:
            response.close()
    except httpx2.ConnectTimeout as error:
        raise TransientError("it cannot be reached (timed out)", unreachable=True) from error
    except (httpx2.ConnectError, httpx2.ProxyError) as error:
        raise TransientError(f"it cannot be reached ({error})", unreachable=True) from error
    except httpx2.TimeoutException as error:
        seconds = client.timeout.read
        raise TransientError(f"nothing came for {seconds:g} s") from error
    except httpx2.RequestError as error:
        raise TransientError(f"the connection was cut ({error})") from error


def _send(
    client: httpx2.Client,
    place: Place,
    channel: Channel,
    headers: Mapping[str, str],
    wishes: Mapping[str, str],
) -> httpx2.Response:
    request = client.build_request("GET", place.url, headers={**headers, **wishes})
    for _ in range(_MOST_REDIRECTS + 1):
        with channel.waiting():
            response = client.send(request, stream=True)
        following = response.next_request
        if following is None:
            return response
        response.close()
        schemes = request.url.scheme, following.url.scheme
        if schemes not in (("http", "http"), ("http", "https"), ("https", "https")):
            raise RefusedError(
                f"it redirects from {schemes[0]} to {schemes[1]} ({shown_url(following.url)}), "
                "which is not safe"
            )
        if following.url.origin != request.url.origin:
            for name in headers:
                following.headers.pop(name, None)
        request = following
    raise RefusedError(f"it redirects more than {_MOST_REDIRECTS} times")


def _read_answer(response: httpx2.Response, place: Place, start: int) -> Answer:
    status = response.status_code
    has_chunks = "transfer-encoding" in response.headers
    length = None if has_chunks else _to_int(response.headers.get("content-length"))
    total: int | None
    if status == HTTPStatus.OK:
        start, total = 0, length
    elif start and status in (
        HTTPStatus.PARTIAL_CONTENT,
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    ):
        start, total = _read_content_range(response)
    else:
        raise _refusal(response)
    etag = response.headers.get("etag")
    last_modified = response.headers.get("last-modified")
    origin = Origin(
        url=place.shown,
        etag=etag,
        last_modified=last_modified,
        validator=etag
        if etag is not None and etag.startswith('"')
        else (last_modified if _is_strong_date(response) else None),
        nbytes=total,
    )
    return Answer(
        start=start,
        total=total,
        is_delimited=has_chunks or length is not None,
        origin=origin,
        content_type=response.headers.get("content-type", ""),
        content_encoding=response.headers.get("content-encoding", "identity"),
        response=response,
    )


def _read_content_range(response: httpx2.Response) -> tuple[int, int | None]:
    """First byte, and the file's size if it is told; of an empty rest, the first byte is the size.

    Raises:
        TransientError: If the header is absent or makes no sense.
    """
    text = response.headers.get("content-range", "")
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", text)
        if found:
            return int(found[1]), _to_int(found[3])
    elif found := re.fullmatch(r"bytes \*/(\d+)", text):
        return int(found[1]), int(found[1])
    raise TransientError(f"HTTP {response.status_code} with Content-Range {text!r}")


def _refusal(response: httpx2.Response) -> TransientError | RefusedError:
    status = response.status_code
    reason = f"HTTP {status} {response.reason_phrase}".rstrip()
    if status >= 500 or status in _TRANSIENT:
        return TransientError(reason, retry_after=_read_retry_after(response))
    known = _REASONS.get(status)
    return RefusedError(f"{reason}: {known}" if known else f"{reason}, expected 200 OK")


def _read_retry_after(response: httpx2.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    if text.isascii() and text.isdecimal():
        return float(text)
    when = _read_date(text)
    if when is None:
        return None
    now = _read_date(response.headers.get("date", "")) or datetime.now(UTC)
    return max(0.0, (when - now).total_seconds())


def _is_strong_date(response: httpx2.Response) -> bool:
    """Whether the file cannot have changed twice in the second of its Last-Modified."""
    modified = _read_date(response.headers.get("last-modified", ""))
    sent = _read_date(response.headers.get("date", ""))
    return modified is not None and sent is not None and sent - modified >= timedelta(seconds=1)


def _read_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _to_int(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else None
