"""A captioner without a model: the caption tells the picture, and calls are counted."""

import hashlib
import os
import signal
import threading
from pathlib import Path

import numpy as np
import torch

from mmcot_data.captioning import CaptionConfig, CaptionerConfig
from mmcot_data.captioning.run import caption_images


class FakeCaptioner:
    """Prepares a picture as its pixels; kills the process at a given call."""

    is_on_cpu = True

    def __init__(self, alpha="white", dies_in_call=None):
        self.alpha = alpha
        self.batch_sizes = []
        self.most_prepared_at_once = 0
        self._dies_in_call = dies_in_call
        self._num_prepared = 0
        self._lock = threading.Lock()

    @property
    def num_captioned(self):
        return sum(self.batch_sizes)

    def describe(self):
        return {"model_id": "fake", "alpha": self.alpha}

    def environment(self):
        return {"device": "none"}

    def prepare(self, image):
        with self._lock:
            self._num_prepared += 1
            waiting = self._num_prepared - self.num_captioned
            self.most_prepared_at_once = max(self.most_prepared_at_once, waiting)
        return {"pixels": torch.from_numpy(np.array(image))[None]}

    def caption(self, pictures):
        self.batch_sizes.append(len(pictures))
        if len(self.batch_sizes) == self._dies_in_call:
            os.kill(os.getpid(), signal.SIGKILL)
        batch = torch.cat([picture["pixels"] for picture in pictures])
        return [_digest(pixels.numpy()) for pixels in batch]

    @staticmethod
    def caption_of(image):
        return _digest(np.array(image))


def _digest(pixels):
    return f"{pixels.shape} {hashlib.sha256(pixels.tobytes()).hexdigest()[:8]}"


def die_in_call(number, data: Path, out: Path, batch_size):
    config = CaptionConfig(
        data=data, out=out, captioner=CaptionerConfig(name="tiny"), batch_size=batch_size
    )
    caption_images(config, captioner=FakeCaptioner(dies_in_call=number))
