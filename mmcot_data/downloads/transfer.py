"""Bring one file to its final place, from the first of its places that gives it."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

from mmcot_data.downloads.addresses import Place
from mmcot_data.downloads.channel import Channel
from mmcot_data.downloads.disk_space import check_free_space
from mmcot_data.downloads.exchange import Answer, ask
from mmcot_data.downloads.failures import RefusedError, TransientError
from mmcot_data.downloads.fetch_settings import FetchSettings
from mmcot_data.downloads.partial_file import Origin, PartialFile, hash_in_steps
from mmcot_data.downloads.remote_file import FetchedFile, RemoteFile
from mmcot_data.errors import DownloadError

__all__ = ["Transfer"]


class _WrongContentError(Exception):
    """What came is not the file that was published."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """One file, and how to fetch it."""

    file: RemoteFile
    path: Path
    """Its final place."""
    places: Sequence[Place]
    """Where to look for it, in this order; the last one is its own host."""
    headers: Mapping[str, str]
    """For the file's own server only."""
    settings: FetchSettings
    number: int
    """Its number in the channel."""
    channel: Channel

    def run(self, client: httpx2.Client) -> FetchedFile:
        """Fetch it, unless it is there.

        Raises:
            DownloadError: If no place gives it, or what is there is another file.
            DiskFullError: If there is no room for it.
            StoppedError: If the caller of all this wants no more.
        """
        if self.path.exists():
            return self._take_existing()
        failures = []
        with PartialFile(self.path, self.channel.check) as part:
            self.channel.set_done(self.number, part.nbytes)
            for place, following in zip(self.places, [*self.places[1:], None], strict=True):
                try:
                    _Attempts(self, client, place, part).run()
                except RefusedError as error:
                    failures.append(f"{place.shown}: {error}")
                    if following is not None:
                        self.channel.say(
                            f"{self.file.name}: not from {place.shown} ({error}), trying "
                            f"{following.shown}"
                        )
                else:
                    part.finish()
                    return self._describe(place, part.nbytes, part.sha256(), part.origin)
            stays = f", {part.nbytes} bytes stay beside it for the next run" if part.nbytes else ""
        raise DownloadError(
            f"{self.file.name} cannot be fetched. {'. '.join(failures)}. Nothing stands at its "
            f"final place{stays}. Run the same command again later, or name a mirror that has "
            "the file"
        )

    def _take_existing(self) -> FetchedFile:
        if not self.path.is_file():
            raise DownloadError(
                f"{self.path} should be a file and is none: move it away, or choose another folder"
            )
        nbytes = self.path.stat().st_size
        sha256 = hash_in_steps(self.path, self.channel.check).hexdigest()
        difference = _find_difference(self.file, nbytes, sha256)
        if difference is not None:
            raise DownloadError(
                f"{self.path} is there, but is not the file that was published: {difference}; "
                "delete it to fetch it anew"
            )
        return self._describe(None, nbytes, sha256, None)

    def _describe(
        self, place: Place | None, nbytes: int, sha256: str, origin: Origin | None
    ) -> FetchedFile:
        self.channel.set_total(self.number, nbytes)
        return FetchedFile(
            name=self.file.name,
            url=None if place is None else place.shown,
            nbytes=nbytes,
            sha256=sha256,
            etag=None if origin is None else origin.etag,
            last_modified=None if origin is None else origin.last_modified,
            verified=self.file.sha256 is not None,
        )


class _Attempts:
    """Tries to get one file from one place."""

    def __init__(
        self, transfer: Transfer, client: httpx2.Client, place: Place, part: PartialFile
    ) -> None:
        self._transfer = transfer
        self._file = transfer.file
        self._settings = transfer.settings
        self._channel = transfer.channel
        self._client = client
        self._place = place
        self._part = part
        self._was_wrong = False

    def run(self) -> None:
        """Try until the part is whole and is the file that was published.

        Raises:
            RefusedError: If it can't be had here.
        """
        num_failures = furthest = 0
        while True:
            try:
                self._try_once()
                self._verify()
            except TransientError as error:
                num_failures = 1 if self._part.nbytes > furthest else num_failures + 1
                furthest = max(furthest, self._part.nbytes)
                self._wait_or_give_up(error, num_failures)
            except _WrongContentError as error:
                self._part.discard()
                self._channel.set_done(self._transfer.number, 0)
                if self._was_wrong:
                    raise RefusedError(f"{error} (twice)") from error
                self._was_wrong = True
                num_failures = furthest = 0
                self._say(f"{error}, fetching it once more from its beginning")
            else:
                return

    def _wait_or_give_up(self, error: TransientError, num_failures: int) -> None:
        settings = self._settings
        most = settings.num_connect_tries if error.unreachable else settings.num_tries
        if num_failures >= most:
            raise RefusedError(
                f"{error}, the last of {num_failures} tries without a new byte"
            ) from error
        delay = min(settings.first_delay * 2 ** (num_failures - 1), settings.longest_delay)
        delay *= random.uniform(0.5, 1.0)  # so that parallel files don't come back all at once
        if error.retry_after is not None:
            delay = max(delay, min(error.retry_after, settings.longest_asked_delay))
        self._say(f"{error}, trying again in {delay:.1f} s")
        self._channel.pause(delay)

    def _say(self, text: str) -> None:
        self._channel.say(f"{self._file.name} from {self._place.url.host}: {text}")

    def _try_once(self) -> None:
        part = self._part
        total = self._known_total()
        start = part.nbytes if self._can_continue(total) else 0
        if start and start == total:  # stopped just before the end
            return
        origin = part.origin
        with ask(
            self._client,
            self._place,
            self._channel,
            headers=self._transfer.headers if self._place.is_own else {},
            start=start,
            if_range=origin.validator if origin and origin.url == self._place.shown else None,
            past_caches=self._was_wrong,
        ) as answer:
            if answer.start == start > 0:
                self._check_same(answer)
            elif answer.start == 0:
                self._begin(answer)
            else:
                part.discard()
                raise TransientError(
                    f"it sends bytes from {answer.start} on, not those from {start} on; "
                    "beginning anew"
                )
            self._receive(answer)

    def _known_total(self) -> int | None:
        if self._file.nbytes is not None or self._part.origin is None:
            return self._file.nbytes
        return self._part.origin.nbytes

    def _can_continue(self, total: int | None) -> bool:
        """Whether the end, if it comes, is sure to belong to this beginning."""
        part, origin = self._part, self._part.origin
        if total is not None and part.nbytes > total:
            return False
        return self._file.sha256 is not None or (
            origin is not None and origin.url == self._place.shown and origin.validator is not None
        )

    def _begin(self, answer: Answer) -> None:
        """Take an answer that holds the whole file."""
        file = self._file
        is_html = answer.content_type.lower().startswith("text/html")
        told = " (it sends an HTML page)" if is_html else ""
        if None not in (file.nbytes, answer.total) and answer.total != file.nbytes:
            raise _WrongContentError(f"expected {file.nbytes} bytes, found {answer.total}{told}")
        if file.sha256 is None:
            if is_html and not file.name.endswith((".html", ".htm")):
                raise RefusedError(
                    f"expected {file.name}, found an HTML page: a login page or an error"
                )
            if answer.content_encoding != "identity":
                raise RefusedError(
                    f"it sends the file in another encoding ({answer.content_encoding}), which "
                    "was not asked for, and no checksum of it is known"
                )
        self._check_end_is_told(answer, file.nbytes if answer.total is None else answer.total)
        keep = answer.total is None or answer.total > self._settings.resumable_nbytes
        self._part.begin(answer.origin, keep=keep)

    def _check_end_is_told(self, answer: Answer, total: int | None) -> None:
        """Refuse a body of which nobody could say whether it is whole."""
        if total is None and not answer.is_delimited and self._file.sha256 is None:
            raise RefusedError(
                "it doesn't say how long the file is, and neither size nor checksum is known: a "
                "cut connection could not be noticed"
            )

    def _check_same(self, answer: Answer) -> None:
        """Take an answer that holds the rest of the file."""
        old, new = self._part.origin, answer.origin
        total = self._known_total()
        has_changed = total is not None and (
            answer.total not in (None, total) or (answer.end or 0) > total
        )
        if old is not None and old.url == new.url:
            for one, other in ((old.etag, new.etag), (old.last_modified, new.last_modified)):
                has_changed |= None not in (one, other) and one != other
        if has_changed:
            self._part.discard()
            raise TransientError("the file has changed since its beginning was fetched")

    def _receive(self, answer: Answer) -> None:
        part, channel = self._part, self._channel
        total = self._known_total() if answer.total is None else answer.total
        if total is None and answer.is_part and self._file.sha256 is None:
            part.discard()
            raise TransientError(
                "it sends a part without saying how long the file is, and neither size nor "
                "checksum is known; beginning anew"
            )
        channel.set_done(self._transfer.number, part.nbytes)
        if total is not None:
            channel.set_total(self._transfer.number, total)
            if self._file.nbytes is None:
                folder = self._transfer.path.parent
                check_free_space(folder, channel.missing, "what is still to come")
        if part.nbytes == total:
            return
        end = total if answer.end is None else answer.end
        for chunk in answer.chunks(channel):
            if end is not None and part.nbytes + len(chunk) > end:
                raise _WrongContentError(f"expected {end} bytes, found more")
            part.append(chunk)
            channel.set_done(self._transfer.number, part.nbytes)
        expected = end if total is None else total
        if expected is not None and part.nbytes < expected:
            raise TransientError(f"it ended after {part.nbytes} of {expected} bytes")

    def _verify(self) -> None:
        difference = _find_difference(self._file, self._part.nbytes, self._part.sha256())
        if difference is not None:
            raise _WrongContentError(difference)


def _find_difference(file: RemoteFile, nbytes: int, sha256: str) -> str | None:
    """What differs from what was published; None if nothing does."""
    if file.nbytes not in (None, nbytes):
        return f"expected {file.nbytes} bytes, found {nbytes}"
    if file.sha256 is not None and file.sha256.lower() != sha256:
        return f"expected sha256 {file.sha256}, found {sha256}"
    return None
