"""An encoder whose features are known without it, and small data sets of one-colour pictures."""

import json
import time
from pathlib import Path

import torch
from PIL import Image

PATCHES, WIDTH = 4, 3


class FakeEncoder:
    """The mean colour of each quarter of a picture, scaled like DETR: shorter side 16 pixels.

    A picture of one colour has that colour, divided by 256, as the feature of every patch.
    """

    name = "fake"
    num_patches = PATCHES
    feature_dim = WIDTH

    def __init__(self, *, layer="mean", factor=1.0, hang_at=None):
        self.layer = layer
        self.factor = factor
        self.hang_at = hang_at
        """Number of the batch, counted from 1, that never ends."""
        self.batches = []
        """Shapes of the batches encoded so far."""

    def describe(self):
        return {
            "encoder": self.name,
            "model_id": "org/fake",
            "revision": None,
            "weights_sha256": "00" * 32,
            "random_weights": None,
            "layer": self.layer,
            "preprocessing": [{"step": "resize", "size": 16, "mean": (0.0, 0.0)}],
            "precision": "fp32",
            "precision_error": None,
            "backend": "torch",
            "num_patches": PATCHES,
            "feature_dim": WIDTH,
            "grid": None,
            "versions": {"fake": "1"},
        }

    def environment(self):
        return {"device": "cpu"}

    def input_size(self, width, height):
        shorter = min(width, height)
        return 16 * height // shorter, 16 * width // shorter

    def prepare(self, image):
        height, width = self.input_size(*image.size)
        pixels = torch.tensor(list(image.resize((width, height)).tobytes()), dtype=torch.uint8)
        return pixels.reshape(height, width, 3).permute(2, 0, 1)

    pads = False

    def start(self, pixels_BCHW, sizes=None):
        features_BPD = self.encode(pixels_BCHW)
        return lambda: features_BPD

    def encode(self, pixels_BCHW):
        self.batches.append(tuple(pixels_BCHW.shape))
        if len(self.batches) == self.hang_at:
            time.sleep(600)
        quarters = torch.nn.functional.adaptive_avg_pool2d(pixels_BCHW.float(), 2)
        return quarters.flatten(2).transpose(1, 2) / 256 * self.factor


def colour_of(number):
    """A colour that no other number below 4,000 has."""
    return (number % 256, 50 + number // 256, 200 - number % 7)


def save_picture(path, number, size=(32, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour_of(number)).save(path)


def make_data(folder: Path, num_questions=12, sizes=((32, 32), (48, 32), (32, 64)), captions=None):
    """A data set; question ``i`` has a picture of colour ``i`` and of size ``sizes[i % …]``."""
    splits = {"train": [], "val": [], "test": []}
    problems = {}
    for number in range(num_questions):
        split = ("train", "val", "test")[3 * number // num_questions]
        splits[split].append(str(number))
        problems[str(number)] = {
            "question": f"What is on picture {number}?",
            "choices": ["this", "that"],
            "answer": number % 2,
            "hint": "",
            "image": "image.png",
            "task": "closed choice",
            "grade": "grade2",
            "subject": "natural science",
            "topic": "colours",
            "category": "Colours",
            "skill": "Name a colour",
            "lecture": "",
            "solution": "",
            "split": split,
        }
        path = folder / "images" / split / str(number) / "image.png"
        save_picture(path, number, sizes[number % len(sizes)])
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps(splits))
    if captions is not None:
        (folder / "captions.json").write_text(json.dumps({"captions": captions}))
    return folder


def picture_path(folder: Path, question_id, name="image.png"):
    return next((folder / "images").glob(f"*/{question_id}")) / name
