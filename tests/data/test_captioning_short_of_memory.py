"""Captioning when the device's memory is too small for a batch."""

import pytest
import torch
from fake_captioner import FakeCaptioner

from mmcot_data.captioning import CaptionConfig, CaptionerConfig
from mmcot_data.captioning.engine import generate_captions
from mmcot_data.captioning.run import caption_images
from mmcot_data.cli.captions.generate import _print_summary
from mmcot_data.errors import GenerationError
from mmcot_data.extraction.decode import decode_scanned
from mmcot_data.extraction.prepare import open_pictures, scan_source
from mmcot_data.sample import draw_sample
from mmcot_data.text_artifacts import read_made_by


class SmallCaptioner(FakeCaptioner):
    """Fits a number of pictures; says of more what a GPU, its wrapper or a CPU says."""

    def __init__(self, fits, kind):
        super().__init__()
        self._fits, self._kind = fits, kind
        self.asked = []

    def caption(self, pictures):
        self.asked.append(len(pictures))
        if len(pictures) <= self._fits:
            return super().caption(pictures)
        if self._kind == "gpu":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if self._kind == "explained":
            raise GenerationError("too little memory") from torch.OutOfMemoryError("CUDA")
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "data"
    draw_sample(folder, num_questions=100, num_workers=1)
    return folder


@pytest.fixture(scope="module")
def images(data):
    config = CaptionConfig(
        data=data, out=data.parent / "out", captioner=CaptionerConfig(name="tiny")
    )
    scanned = scan_source(open_pictures(config)).images
    return list({image.image_sha256: image for image in scanned}.values())


def caption(images, captioner, batch_size, on_halved=lambda: None):
    parts = generate_captions(images, captioner, batch_size, on_halved)
    return {image.file: text for part in parts for image, text in part}


@pytest.mark.parametrize("kind", ["gpu", "explained", "cpu"])
def test_a_batch_that_does_not_fit_is_captioned_in_halves(images, kind):
    """Would catch captions given to the wrong pictures, or a full batch tried again and again."""
    captioner, halved = SmallCaptioner(4, kind), []
    captions = caption(images, captioner, 7, lambda: halved.append(1))
    assert captions == {
        image.file: FakeCaptioner.caption_of(decode_scanned(image, "white")) for image in images
    }
    assert sum(size > 4 for size in captioner.asked) == 1
    assert len(halved) >= sum(size == 4 for size in captioner.asked) > 1


def test_a_half_that_does_not_fit_is_an_error_that_names_a_batch_size(images):
    """Would catch halving without an end, and advice that fails again."""
    captioner = SmallCaptioner(2, "gpu")
    with pytest.raises(GenerationError, match=r"batch of 8 .* half of it: use --batch-size 2 or"):
        caption(images, captioner, 8)
    assert captioner.asked == [8, 4]
    for batch_size in (1, 2):
        with pytest.raises(GenerationError, match="not even one picture"):
            caption(images, SmallCaptioner(0, "gpu"), batch_size)


def test_other_errors_are_not_taken_for_a_want_of_memory(images):
    """Would catch a mistake of the model that is hidden by a second try."""

    class Broken(FakeCaptioner):
        def caption(self, pictures):
            self.batch_sizes.append(len(pictures))
            raise RuntimeError("expected all tensors on one device")

    captioner = Broken()
    with pytest.raises(RuntimeError, match="one device"):
        caption(images, captioner, 4)
    assert captioner.batch_sizes == [4]


def test_halved_batches_are_recorded_and_told(data, tmp_path, capsys):
    """Would catch a run whose slowness nobody could explain afterwards."""
    config = CaptionConfig(
        data=data, out=tmp_path, captioner=CaptionerConfig(name="tiny"), batch_size=6
    )
    summary = caption_images(config, captioner=SmallCaptioner(3, "gpu"))
    assert summary.num_halved > 1
    [run] = read_made_by(summary.path)["runs"]
    assert (run["batch_size"], run["halved_batches"]) == (6, summary.num_halved)
    _print_summary(summary)
    assert f"short of memory: {summary.num_halved} batches in halves" in capsys.readouterr().out
