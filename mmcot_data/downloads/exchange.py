"""One request for a file or for the rest of it, and what the answer says."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

import httpx2

from mmcot_data.downloads.addresses import Place, shown_url
from mmcot_data.downloads.channel import Channel
from mmcot_data.downloads.failures import (
    RefusedError,
    TransientError,
    explain_error,
    explain_status,
    is_strong_date,
)
from mmcot_data.downloads.partial_file import Origin

__all__ = ["Answer", "ask"]

_MOST_REDIRECTS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A part of a file, or all of it."""

    start: int
    """Place of the body's first byte in the file."""
    end: int | None
    """Place behind its last byte, if it is told."""
    total: int | None
    """Bytes of the whole file, if it is told."""
    is_delimited: bool
    """Whether a body that was cut can be told from a whole one."""
    origin: Origin
    content_type: str
    content_encoding: str
    response: httpx2.Response

    @property
    def is_part(self) -> bool:
        """Whether the server calls it a part of the file."""
        return self.response.status_code == HTTPStatus.PARTIAL_CONTENT

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
    except httpx2.ReadTimeout as error:
        raise TransientError(f"nothing came for {client.timeout.read:g} s") from error
    except httpx2.RequestError as error:
        raise explain_error(error) from error


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
    end: int | None
    total: int | None
    if status == HTTPStatus.OK:
        start, end, total = 0, length, length
    elif start and status in (
        HTTPStatus.PARTIAL_CONTENT,
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    ):
        start, end, total = _read_content_range(response)
    else:
        raise explain_status(response)
    etag = response.headers.get("etag")
    last_modified = response.headers.get("last-modified")
    origin = Origin(
        url=place.shown,
        etag=etag,
        last_modified=last_modified,
        validator=etag
        if etag is not None and etag.startswith('"')
        else (last_modified if is_strong_date(response) else None),
        nbytes=total,
    )
    return Answer(
        start=start,
        end=end,
        total=total,
        is_delimited=has_chunks or length is not None,
        origin=origin,
        content_type=response.headers.get("content-type", ""),
        content_encoding=response.headers.get("content-encoding", "identity"),
        response=response,
    )


def _read_content_range(response: httpx2.Response) -> tuple[int, int, int | None]:
    """First byte, the place behind the last one, and the file's size if it is told.

    An empty rest begins where the file ends.

    Raises:
        TransientError: If the header is absent or makes no sense.
    """
    text = response.headers.get("content-range", "")
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", text, re.ASCII)
        if found:
            start, end, total = int(found[1]), int(found[2]) + 1, _to_int(found[3])
            if start < end and (total is None or end <= total):
                return start, end, total
    elif found := re.fullmatch(r"bytes \*/(\d{1,18})", text, re.ASCII):
        return int(found[1]), int(found[1]), int(found[1])
    raise TransientError(f"HTTP {response.status_code} with Content-Range {text!r}")


def _to_int(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else None
