"""Where the files of a feature set are: a folder, or a URL whose files are kept in a cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mmcot_data.errors import ShardError
from mmcot_data.shards.manifest import MANIFEST, Manifest, parse_manifest, read_manifest
from mmcot_data.shards.remote import FileCache, is_remote, read_remote

__all__ = ["LocalFolder", "Location", "RemoteFolder", "find_location"]


class Location(Protocol):
    """A feature set's folder, wherever it is; it can be pickled."""

    def read_manifest(self) -> Manifest:
        """Read manifest.json.

        Raises:
            ShardError: If it is absent, damaged or of another format version.
        """
        ...

    def file(self, name: str, *, sha256: str, nbytes: int) -> Path:
        """A file of the folder on the local disk.

        Raises:
            ShardError: If it is absent or has another size than ``nbytes``.
        """
        ...

    def advice(self, path: Path) -> str:
        """What to do when the file at ``path`` is damaged."""
        ...


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A folder; its files are where they are."""

    folder: Path
    """As it was given, for messages."""
    absolute: Path
    """Where it is, whatever the working directory becomes."""

    def __str__(self) -> str:
        return str(self.folder)

    def read_manifest(self) -> Manifest:
        """Read manifest.json."""
        return read_manifest(self.folder)

    def file(self, name: str, *, sha256: str, nbytes: int) -> Path:
        """The file, if its size is right; its digest is not computed."""
        del sha256
        path = self.absolute / name
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise ShardError(
                f"{path} is listed in manifest.json but absent; restore it from a copy, or run "
                "what made the feature set again"
            ) from error
        if size != nbytes:
            raise ShardError(
                f"{path} is damaged: it has {size} bytes, manifest.json says {nbytes}; "
                f"{self.advice(path)}"
            )
        return path

    def advice(self, path: Path) -> str:
        """What to do when the file at ``path`` is damaged."""
        del path
        return "restore it from a copy, or delete it and run what made the feature set again"


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """A URL; each file is downloaded when it is first needed, checked, and kept in a cache."""

    url: str
    cache: FileCache
    storage_options: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return self.url

    def read_manifest(self) -> Manifest:
        """Read manifest.json anew."""
        url = f"{self.url}/{MANIFEST}"
        return parse_manifest(read_remote(url, storage_options=self.storage_options), url)

    def file(self, name: str, *, sha256: str, nbytes: int) -> Path:
        """The file in the cache; its digest was compared when it was downloaded."""
        return self.cache.fetch(
            f"{self.url}/{name}",
            sha256=sha256,
            nbytes=nbytes,
            storage_options=self.storage_options,
        )

    def advice(self, path: Path) -> str:
        """What to do when the file at ``path`` is damaged."""
        return f"delete {path} to download it again"


def find_location(
    path: str | Path,
    *,
    cache: Path | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Location:
    """The location of a path or URL.

    Args:
        path: A folder, or a URL such as ``s3://bucket/shards/detr``.
        cache: Folder of the cache for URLs; see ``FileCache`` for the default.
        storage_options: For fsspec, as ``{"anon": True}``.
    """
    if is_remote(path):
        return RemoteFolder(str(path).rstrip("/"), FileCache(cache), storage_options)
    return LocalFolder(Path(path), Path(path).absolute())
