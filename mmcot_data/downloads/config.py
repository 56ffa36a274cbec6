"""What to download, from where, and into which folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mmcot_data.downloads.addresses import shown_text
from mmcot_data.questions import SPLITS

__all__ = ["DatasetName", "DownloadConfig", "Source"]

DatasetName = Literal["scienceqa", "aokvqa"]
Source = Literal["hub", "official"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadConfig:
    """One data set in one folder.

    Raises:
        ValueError: If a setting is not one of those that are possible.
    """

    dataset: DatasetName
    out: Path
    """The folder that becomes the data set: new, empty, or begun by the same request."""
    source: Source | None = None
    """``hub`` is Hugging Face's, ``official`` what the authors publish; None is ``hub`` for
    ScienceQA and ``official`` for A-OKVQA."""
    mirrors: tuple[str, ...] = ()
    """Servers that have the same files under the same paths: ``https://mirror.example/prefix``."""
    revision: str | None = None
    """Branch, tag or commit: of the repository on the hub, or for ``official`` of ScienceQA's
    repository on GitHub. None is a pinned commit of the hub's, and GitHub's ``main``."""
    splits: tuple[str, ...] | None = None
    """Only the pictures of these splits; all if None."""
    num_parallel: int = 4
    """Files that are fetched at a time."""
    keep_archives: bool = False
    """Keep what the pictures were taken from in ``archives/``."""
    prove_pictures: Path | None = None
    """Official ``images`` folder, or a part of it, to compare the hub's pictures with."""

    def __post_init__(self) -> None:
        if self.dataset not in get_args(DatasetName):
            raise ValueError(
                f"dataset is {self.dataset!r}, expected one of {', '.join(get_args(DatasetName))}"
            )
        if self.source is not None and self.source not in get_args(Source):
            raise ValueError(f"source is {self.source!r}, expected hub or official")
        if self.splits is not None and (not self.splits or set(self.splits) - set(SPLITS)):
            raise ValueError(f"splits are {self.splits}, expected some of {', '.join(SPLITS)}")
        if self.num_parallel < 1:
            raise ValueError(f"num_parallel is {self.num_parallel}, expected at least 1")
        for mirror in self.mirrors:
            if not mirror.startswith(("https://", "http://")):
                raise ValueError(
                    "the mirror: expected a URL as https://mirror.example/prefix, found "
                    f"{shown_text(mirror)}"
                )
        self._check_combination()

    def _check_combination(self) -> None:
        if self.dataset == "aokvqa":
            if self.source == "hub":
                raise ValueError(
                    "A-OKVQA comes from its official address only: the hub's copies re-encode the "
                    "pictures, and nothing published proves them"
                )
            if self.revision is not None:
                raise ValueError("A-OKVQA is one archive without revisions")
        if self.prove_pictures is not None and self.chosen_source != "hub":
            raise ValueError("only the hub's pictures can be proved by the official ones")

    @property
    def chosen_source(self) -> Source:
        """``source``, or the data set's default."""
        return self.source or ("hub" if self.dataset == "scienceqa" else "official")

    @property
    def chosen_splits(self) -> tuple[str, ...]:
        """``splits`` in the usual order, or all."""
        return tuple(split for split in SPLITS if self.splits is None or split in self.splits)
