"""What is known about a file before and after it is fetched."""

from dataclasses import dataclass

__all__ = ["FetchedFile", "RemoteFile"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file that is to be fetched."""

    name: str
    """Its place in the folder that it is fetched into, with forward slashes."""
    url: str
    nbytes: int | None = None
    """Published size; None if none is known in advance."""
    sha256: str | None = None
    """Published hex digest; None if none is known in advance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedFile:
    """A file that is there, whole."""

    name: str
    url: str | None
    """Where it came from, after mirrors; before redirects. None if it was there before, and nothing
    tells which server gave it."""
    nbytes: int
    sha256: str
    etag: str | None
    last_modified: str | None
    verified: bool
    """Whether a digest that was known in advance (published, or told by the hub) was compared;
    otherwise ``sha256`` is recorded, not proved."""

    @property
    def shown(self) -> str:
        """Its name, and where it came from if that is known."""
        return self.name if self.url is None else f"{self.name} from {self.url}"
