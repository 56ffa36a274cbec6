"""Whether all captions that are asked for are there already, told without loading the model."""

from collections.abc import Mapping
from typing import Any

from mmcot_data.captioning.known_by import known_by
from mmcot_data.captioning.request import SCHEMA, CaptionRequest, Failure, Key, key_of
from mmcot_data.captions import CAPTION_KEY
from mmcot_data.errors import ImageError
from mmcot_data.extraction.decode import decode_scanned
from mmcot_data.extraction.scan import ScannedImage
from mmcot_data.text_artifacts import read_artifact, read_made_by

__all__ = ["failures_to_json", "finished_failures", "read_failures"]


def finished_failures(request: CaptionRequest) -> dict[Key, Failure] | None:
    """The pictures without a caption, if nothing is left to do; None if something may be.

    Pictures that could not be decoded are tried again.

    Raises:
        DataError: If the captions' file is damaged.
        EncoderError: If the model's folder or the device does not exist.
        ExtractionError: If a picture's file has changed since it was scanned.
    """
    if not request.path.is_file():
        return None
    made_by = read_made_by(request.path)
    known = known_by(request.config, request.dataset)
    if known["model_stamp"] is None or made_by.get("known_by") != known:
        return None
    table = read_artifact(request.path, SCHEMA, CAPTION_KEY)
    digests = {(question_id, role): digest for question_id, role, _, digest in table.iter_rows()}
    listed = read_failures(made_by)
    failed = {}
    for image in request.images:
        key = key_of(image)
        if image.reason is None and digests.get(key) == image.image_sha256:
            continue
        if key in digests or key not in listed or _failure(request, image) != listed[key]:
            return None
        failed[key] = listed[key]
    return failed


def _failure(request: CaptionRequest, image: ScannedImage) -> Failure | None:
    """Why a picture can't be used, as far as that is known without a model."""
    if image.reason is not None:
        return image.reason, image.error or ""
    try:
        decode_scanned(image, request.config.captioner.alpha)
    except ImageError as error:
        return error.reason, str(error)
    return None


def failures_to_json(failed: Mapping[Key, Failure]) -> list[dict[str, str]]:
    """Pictures without a caption, for the notes of the captions' file."""
    return [
        {"question_id": question_id, "role": role, "reason": reason, "error": error}
        for (question_id, role), (reason, error) in failed.items()
    ]


def read_failures(made_by: Mapping[str, Any]) -> dict[Key, Failure]:
    """The pictures without a caption that the notes of a captions' file list."""
    return {
        (each["question_id"], each["role"]): (each["reason"], each["error"])
        for each in made_by.get("failures", ())
    }
