"""What ``benchmarks.extract_gpu`` measures, in the order of its importance."""

import argparse
from pathlib import Path

from benchmarks.extract_gpu_batches import measure_batches
from benchmarks.extract_gpu_budget import Budget
from benchmarks.extract_gpu_encoder import Sets, Setting, measure_encoder, measure_together
from benchmarks.extract_gpu_stages import describe_device
from benchmarks.extract_models import find_model
from benchmarks.extract_ours import Request
from benchmarks.extract_pictures import choose_pictures, list_pictures, multiply

__all__ = ["measure_all"]

_NUM_FEWER = 256
_NUM_FEW = 24
_STRIDE = 32
_BATCH_SECONDS = 15.0
_TOGETHER_SECONDS = 60.0


def measure_all(arguments: argparse.Namespace, budget: Budget, folder: Path) -> None:
    """Encoder by encoder."""
    budget.emit("machine", **describe_device(arguments.device))
    originals = choose_pictures(
        list_pictures(arguments.pictures), arguments.num, folder / "originals"
    )
    sets = Sets(
        many=multiply(originals, arguments.num, folder / "many"),
        fewer=multiply(originals, min(_NUM_FEWER, arguments.num), folder / "fewer"),
        few=multiply(originals, min(_NUM_FEW, len(originals)), folder / "few"),
    )
    budget.emit(
        "pictures",
        files=len(sets.many),
        distinct_pictures=len(originals),
        left_out=originals.num_left_out,
        mean_pixels=round(originals.mean_pixels),
        mean_nbytes=round(originals.mean_nbytes),
    )
    requests = []
    for encoder in arguments.encoder:
        model = find_model(
            encoder,
            arguments.model,
            folder / encoder,
            originals.paths,
            seed=arguments.random_weights,
            tiny=arguments.tiny,
        )
        request = Request(
            model=model,
            pictures=sets.many,
            batch_size=arguments.batch_size,
            device=arguments.device,
        )
        settings = [
            Setting(precision=precision, backend=backend)
            for backend in arguments.backend
            for precision in arguments.precision
        ]
        if encoder == "detr":
            if budget.allows(_BATCH_SECONDS, "batch against single pictures", encoder=encoder):
                measure_batches(budget, request, arguments.precision)
            settings += [
                Setting(precision=precision, pad_to=_STRIDE) for precision in arguments.precision
            ]
        measure_encoder(budget, request, sets, settings, folder)
        requests.append(request)
    for precision in arguments.precision:
        if budget.allows(_TOGETHER_SECONDS, "all encoders together", precision=precision):
            measure_together(budget, requests, precision, folder)
