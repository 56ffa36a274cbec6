"""The captions of a data set by a model, in one process: begin, caption what is pending, finish."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcot_data.captioning.config import CaptionConfig
from mmcot_data.captioning.finished import finished_failures
from mmcot_data.captioning.making import CaptionsInProgress, CaptionSummary
from mmcot_data.captioning.request import SCHEMA, read_request
from mmcot_data.captions import CAPTION_KEY
from mmcot_data.growing_artifact import grow_artifact

if TYPE_CHECKING:
    from mmcot_data.captioning.captioner import Captioner

__all__ = [
    "CaptionReports",
    "CaptionSummary",
    "CaptionsInProgress",
    "begin_captions",
    "caption_images",
]


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionReports:
    """Functions that are told how captioning gets on."""

    scanned: Callable[[int, int], object] = _ignore
    """Pictures whose bytes were read, and all of them."""
    captioned: Callable[[int, int], object] = _ignore
    """Distinct pictures that are done, those of earlier runs included, and all of them."""


@contextmanager
def begin_captions(
    config: CaptionConfig,
    on_scanned: Callable[[int, int], object] | None = None,
    *,
    captioner: "Captioner | None" = None,
) -> Iterator[CaptionsInProgress]:
    """Read the pictures and find which of them are to be captioned.

    The model is loaded only if that may be some. No other process can make the same captions
    until the context is left.

    Args:
        config: The request.
        on_scanned: Called with the number of pictures whose bytes were read, and that of all.
        captioner: The loaded captioner; ``load_captioner(config.captioner)`` if None.

    Raises:
        DataError: If the data set can't be read or has no such pictures, the artifact root holds
            another one, or the captions were made in another way or by another process.
        EncoderError: If the model can't be loaded.
        ExtractionError: If more pictures can't be used than ``config.max_failures`` allows.
    """
    request = read_request(config, on_scanned)
    if captioner is None and (failed := finished_failures(request)) is not None:
        yield CaptionsInProgress(request, failed)
        return
    if captioner is None:
        from mmcot_data.captioning.loading import load_captioner

        captioner = load_captioner(config.captioner)
    settings = {"dataset": request.dataset, **captioner.describe()}
    with grow_artifact(request.path, SCHEMA, CAPTION_KEY, settings) as artifact:
        yield CaptionsInProgress(request, dict(request.unusable), artifact, captioner)


def caption_images(
    config: CaptionConfig,
    reports: CaptionReports | None = None,
    *,
    captioner: "Captioner | None" = None,
) -> CaptionSummary:
    """Caption the pictures of a data set, and write its tables beside the captions.

    Equal pictures are captioned once. Whatever stops it, the same call goes on where it was;
    captions of pictures that have changed are made anew.

    Args:
        config: The request.
        reports: Told how it gets on.
        captioner: As for ``begin_captions``.

    Raises:
        DataError: As ``begin_captions``.
        EncoderError: As ``begin_captions``.
        ExtractionError: If more pictures fail than ``config.max_failures`` allows, or one has
            changed meanwhile.
        GenerationError: If the device has too little memory, or the model fails.
    """
    reports = reports or CaptionReports()
    with begin_captions(config, reports.scanned, captioner=captioner) as captions:
        captions.caption_pending(reports.captioned)
        return captions.finish()
