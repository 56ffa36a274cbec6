"""What feature sets of several sizes need: GPU-hours, disk, files, requests and reading time.

Everything is computed; nothing of these sizes is made. Bytes are those of the code: of a shard's
header, of an index with incompressible digests and of a commit record, each written once in
small. GPU-hours are pictures over a rate. Without --rate, it is the operations that torch counts
in a forward pass of one picture of 640 x 480, at --tflops times --utilisation: by default what an
H100 SXM does in strict float32 (NVIDIA's data sheet says 67 TFLOP/s) at an assumed 60 %. Decoding
has to keep up, which takes processor cores.
"""

import argparse
import hashlib
import io
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import print_table
from benchmarks.scale_set import encoder_spec, index_part, zero_columns
from mmcot_data.encoders import ENCODERS, EncoderConfig, load_encoder
from mmcot_data.shards.containers import frame_shard
from mmcot_data.shards.manifest import (
    MANIFEST,
    Manifest,
    ShardCommit,
    commit_path,
    write_commit,
    write_manifest,
)
from mmcot_data.shards.planning import default_shard_size, shard_files
from mmcot_data.shards.remote import _BLOCK_NBYTES
from mmcot_data.shards.schema import FeatureSpec, PlanKey, ShardRecord
from mmcot_data.shards.uploads import PART_NBYTES

__all__ = ["main"]

_SIZES = (10_332, 1_000_000, 100_000_000)
"""The first are the pictures of ScienceQA's 21,208 questions."""
_PICTURE = (640, 480)
_INDEX_SAMPLE = 200_000


@dataclass(frozen=True, kw_only=True, slots=True)
class _Needs:
    """Of one feature set; sizes are in bytes."""

    num_images: int
    shard_size: int
    shards: int
    features: int
    around: int
    index: int
    manifest: int
    commits: int
    puts: int
    gets: int

    @property
    def stored(self) -> int:
        return self.features + self.around + self.index + self.manifest + self.commits


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each encoder."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sizes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--encoder", nargs="+", choices=ENCODERS, default=["detr", "clip", "vit"])
    parser.add_argument("--pictures", type=int, nargs="+", default=_SIZES, metavar="NUM")
    parser.add_argument(
        "--rate",
        action="append",
        default=[],
        type=_parse_rate,
        metavar="ENCODER=PICTURES/S",
        help="a measured rate of one GPU, from `python -m benchmarks.extract_gpu`",
    )
    parser.add_argument("--tflops", type=float, default=67, help="of one GPU (default: 67)")
    parser.add_argument("--utilisation", type=float, default=0.6, help="default: 0.6")
    parser.add_argument(
        "--gb-per-second",
        type=float,
        nargs="+",
        default=[0.5, 5],
        help="for reading everything once (default: 0.5 5)",
    )
    arguments = parser.parse_args(argv)
    rates = dict(arguments.rate)
    for name in arguments.encoder:
        spec = encoder_spec(name)
        if name in rates:
            rate, source = rates[name], "given"
        else:
            operations = _count_operations(name)
            rate = arguments.tflops * 1e12 * arguments.utilisation / operations
            source = (
                f"computed: {operations / 1e9:.1f} GFLOP, {arguments.tflops:g} TFLOP/s x "
                f"{arguments.utilisation:g}"
            )
        needs = [_compute(spec, num_images) for num_images in arguments.pictures]
        title = f"{name} {spec.row_shape}, {rate:,.0f} pictures/s on one GPU ({source}); computed"
        columns = ("", *(f"{num_images:,} pictures" for num_images in arguments.pictures))
        print_table(title, columns, _rows(needs, rate, arguments.gb_per_second))


def _parse_rate(text: str) -> tuple[str, float]:
    name, _, rate = text.partition("=")
    if name not in ENCODERS:
        raise argparse.ArgumentTypeError(f"{text!r}: expected ENCODER=PICTURES/S, as detr=900")
    return name, float(rate)


def _count_operations(name: str) -> int:
    """Floating-point operations of one picture, a multiplication and an addition each."""
    encoder = load_encoder(EncoderConfig(name=name, random_weights=0, device="cpu"))
    pixels_BCHW = encoder.prepare(Image.new("RGB", _PICTURE))[None]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encoder.start(pixels_BCHW)()
    return counter.get_total_flops()


def _compute(spec: FeatureSpec, num_images: int) -> _Needs:
    size = default_shard_size(spec, num_images)
    plan = PlanKey(format="hdf5", num_images=num_images, request_sha256="", shard_size=size)
    files = shard_files(plan)
    row_nbytes = zero_columns(spec, 1).features_NPD.nbytes
    frame = frame_shard(".h5", zero_columns(spec, min(size, num_images)), spec)
    around = len(frame.head) + len(frame.tail)
    shard = around + min(size, num_images) * row_nbytes
    digest = hashlib.sha256().hexdigest()
    record = ShardRecord(
        file=files[0],
        rows=size,
        failed=0,
        data_offset=len(frame.head),
        data_nbytes=size * row_nbytes,
        crc_offset=frame.crc_offset,
        file_nbytes=shard,
        sha256=digest,
        header_sha256=digest,
    )
    index = _index_nbytes(spec, plan)
    manifest = _manifest_nbytes(spec, plan, record, len(files))
    commit = _commit_nbytes(spec, plan, record)
    return _Needs(
        num_images=num_images,
        shard_size=size,
        shards=len(files),
        features=num_images * row_nbytes,
        around=around * len(files),
        index=index,
        manifest=manifest,
        commits=commit * len(files),
        puts=len(files) * (_num_puts(shard) + _num_puts(commit))
        + _num_puts(index)
        + _num_puts(manifest),
        gets=len(files) * math.ceil(shard / _BLOCK_NBYTES) + math.ceil(index / _BLOCK_NBYTES) + 1,
    )


def _index_nbytes(spec: FeatureSpec, plan: PlanKey) -> int:
    written = min(plan.num_images, _INDEX_SAMPLE)
    data = io.BytesIO()
    index_part(spec, plan, 0, written).write_parquet(data)
    return round(data.tell() * plan.num_images / written)


def _manifest_nbytes(spec: FeatureSpec, plan: PlanKey, record: ShardRecord, shards: int) -> int:
    manifest = Manifest(
        spec=spec,
        plan=plan,
        request_sha256=record.sha256,
        index_sha256=record.sha256,
        index_nbytes=0,
        rows=plan.num_images,
        shards=(record,) * shards,
    )
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder), manifest)
        return (Path(folder) / MANIFEST).stat().st_size


def _commit_nbytes(spec: FeatureSpec, plan: PlanKey, record: ShardRecord) -> int:
    digests = (record.sha256,) * min(plan.shard_size, plan.num_images)
    commit = ShardCommit(
        spec=spec,
        plan=plan,
        shard=record,
        image_sha256=digests,
        pixel_sha256=digests,
        failed=(),
        made_by={},
    )
    with tempfile.TemporaryDirectory() as folder:
        write_commit(Path(folder), commit)
        return commit_path(Path(folder) / record.file).stat().st_size


def _num_puts(nbytes: int) -> int:
    """One for a small file; else one for each part, one to begin and one to complete."""
    parts = math.ceil(nbytes / PART_NBYTES)
    return 1 if parts == 1 else parts + 2


def _rows(needs: Sequence[_Needs], rate: float, speeds: Sequence[float]) -> list[tuple[str, ...]]:
    table = {
        "time of one GPU": [_show_time(n.num_images / rate) for n in needs],
        "disk": [_show_bytes(n.stored) for n in needs],
        "  features": [_show_bytes(n.features) for n in needs],
        "  around them in the shards": [_show_bytes(n.around) for n in needs],
        "  index.parquet": [_show_bytes(n.index) for n in needs],
        "  manifest.json": [_show_bytes(n.manifest) for n in needs],
        "  commit records": [_show_bytes(n.commits) for n in needs],
        "shards": [f"{n.shards:,} of {n.shard_size:,}" for n in needs],
        "PUTs of files and parts": [f"{n.puts:,}" for n in needs],
        "GETs to read it once": [f"{n.gets:,}" for n in needs],
    }
    table |= {
        f"reading it once at {speed:g} GB/s": [_show_time(n.stored / speed / 1e9) for n in needs]
        for speed in speeds
    }
    return [(label, *values) for label, values in table.items()]


def _show_time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def _show_bytes(nbytes: float) -> str:
    for name, unit in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if nbytes >= unit:
            return f"{nbytes / unit:,.1f} {name}"
    return f"{nbytes / 1e3:.1f} kB"


if __name__ == "__main__":
    main()
