"""One way of ``benchmarks.train`` in a process of its own, which measures when it is told to.

Arguments: the way's name and the request. When it is ready it prints the mean length of an example;
then a line ``train N`` or ``write N TOKENS`` on stdin is answered by a line of JSON on stdout.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.measuring import AnonymousMemory
from benchmarks.train_flops import train_flops
from benchmarks.train_task import Request, Task, prepare_task
from benchmarks.train_ways import Batch, Ours, Reference, Way

__all__ = ["REFERENCE", "main", "measure_training", "measure_writing", "open_way", "start_epochs"]

REFERENCE = "Multimodal-CoT's way"
_MAX_NORM = 1.0


def main() -> None:
    """Answer until stdin ends."""
    name, request = sys.argv[1], Request(**json.loads(sys.argv[2]))
    with AnonymousMemory() as memory:
        task = prepare_task(request)
        way = open_way(name, task, request)
        batches = start_epochs(way)
        measure_training(way, task, batches, 1)
        lengths = [len(each.input_ids) + len(each.labels) for each in task.examples]
        print(json.dumps({"tokens_per_example": sum(lengths) / len(lengths)}), flush=True)
        for line in sys.stdin:
            command, *numbers = line.split()
            if command == "train":
                found = measure_training(way, task, batches, int(numbers[0]))
            else:
                found = measure_writing(way, task, int(numbers[0]), int(numbers[1]))
            found["peak_mib"] = memory.peak_mib
            if task.model.device.type == "cuda":
                found["device_peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
            print(json.dumps(found), flush=True)


def open_way(name: str, task: Task, request: Request) -> Way:
    """A way by its name: the reference's, or ``ours, PRECISION``."""
    if name == REFERENCE:
        return Reference(task, request.batch_size, (request.max_source, request.max_target))
    return Ours(task, request.batch_size, name.removeprefix("ours, "))


def start_epochs(way: Way) -> Iterator[Batch]:
    """The batches of one epoch after the other, without an end."""
    number = 0
    while True:
        yield from way.epoch(number)
        number += 1


def measure_training(
    way: Way, task: Task, batches: Iterator[Batch], num_steps: int
) -> dict[str, Any]:
    """Take steps of the optimizer.

    Returns:
        ``seconds``, of them ``waiting`` for data, ``cpu_seconds``, real ``tokens`` of sources and
        targets, all ``positions``, ``examples``, and ``flops``, the operations that the real
        tokens need.
    """
    model = task.model.train()
    num_patches = task.features.row_shape[0]
    found: dict[str, Any] = dict.fromkeys(("waiting", "flops"), 0.0)
    found |= dict.fromkeys(("tokens", "positions", "examples"), 0)
    _synchronize(model.device)
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(num_steps):
        before = time.perf_counter()
        batch = next(batches)
        found["waiting"] += time.perf_counter() - before
        inputs: Any = {name: tensor.to(model.device) for name, tensor in batch.items()}
        with way.arithmetic():
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), _MAX_NORM)
        way.optimizer.step()
        way.optimizer.zero_grad()
        sources_B = batch["attention_mask"].sum(dim=1).tolist()
        targets_B = (batch["labels"] > task.tokenizer.pad_token_id).sum(dim=1).tolist()
        found["examples"] += len(sources_B)
        found["tokens"] += sum(sources_B) + sum(targets_B)
        found["positions"] += batch["input_ids"].numel() + batch["labels"].numel()
        found["flops"] += sum(
            train_flops(model.config, source, target, num_patches)
            for source, target in zip(sources_B, targets_B, strict=True)
        )
    _synchronize(model.device)
    found["seconds"] = time.perf_counter() - start
    found["cpu_seconds"] = time.process_time() - cpu
    return found


def measure_writing(way: Way, task: Task, num_texts: int, num_tokens: int) -> dict[str, Any]:
    """Write texts for questions that are spread over all.

    Returns:
        ``seconds``, ``cpu_seconds``, and the ``tokens`` that were written.
    """
    stride = max(1, len(task.examples) // num_texts)
    examples = task.examples[::stride][:num_texts]
    start, cpu = time.perf_counter(), time.process_time()
    way.write(examples, num_tokens)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "tokens": len(examples) * num_tokens,
    }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
