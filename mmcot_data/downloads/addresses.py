"""Where a file may be found: at mirrors, then at its own host; and how to show URLs to people."""

from collections.abc import Sequence
from dataclasses import dataclass

import httpx2

from mmcot_data.downloads.remote_file import RemoteFile
from mmcot_data.errors import DownloadError

__all__ = ["Place", "find_places", "shown_text", "shown_url"]


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere a file may be found."""

    url: httpx2.URL
    is_own: bool
    """Whether it is the file's own host, not a mirror."""

    @property
    def shown(self) -> str:
        """The URL without what is secret in it."""
        return shown_url(self.url)


def find_places(file: RemoteFile, mirrors: Sequence[str]) -> list[Place]:
    """The places of a file, in the order in which they are to be asked.

    A mirror is a base URL, under which the file has the path that it has at its own host.

    Raises:
        DownloadError: If a URL is none, or is neither http nor https.
    """
    own = _parse(file.url, file.name)
    places = []
    for mirror in mirrors:
        base = _parse(mirror, "the mirror")
        path = base.raw_path.partition(b"?")[0].rstrip(b"/") + own.raw_path
        places.append(Place(base.copy_with(raw_path=path), is_own=False))
    return [*places, Place(own, is_own=True)]


def shown_url(url: httpx2.URL) -> str:
    """A URL for people: without user and password, and without its query."""
    shown = str(url.copy_with(username=None, password=None, query=None, fragment=None))
    return f"{shown}?…" if url.query else shown


def shown_text(text: str) -> str:
    """What is no URL, for people; hidden if it may hold a password."""
    return "another" if "@" in text or "?" in text else repr(text)


def _parse(text: str, what: str) -> httpx2.URL:
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:  # its text may hold a password
        url = httpx2.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise DownloadError(
            f"{what}: expected a URL that begins with http:// or https://, found {shown_text(text)}"
        )
    return url
