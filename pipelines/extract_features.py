"""The flow ``extract-features``: its parameters; ``extraction_run`` is what it does with them.

Prefect imports this file to deploy the flow, and in a process of its own for each run that is
cancelled or crashes, which keeps its place until then. So PyTorch is imported only in a run.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import Field

from mmcot_data.encoders import ENCODERS, EncoderConfig, Precision
from mmcot_data.encoders.base import Alpha, Backend, Resizer
from mmcot_data.errors import MmcotError
from mmcot_data.shards.remote import is_remote
from mmcot_data.shards.schema import Container, StorageDtype
from mmcot_data.sources import Layout
from pipelines.outcomes import fail
from pipelines.task_runners import RunnerName, WorkersConfig

if TYPE_CHECKING:
    from mmcot_data.extraction import ExtractionSummary

__all__ = ["extract_features"]

_Encoder = Annotated[str, Field(pattern=f"^({'|'.join(ENCODERS)}|hf:.+)$")]
_Count = Annotated[int, Field(ge=1, le=100_000)]
_Failures = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^\d+(\.\d+)?%$|^\d+$")]

# Of the tasks before and after the shards; Prefect's annotations do not let a runner of its own be
# one.
_ONE_AT_A_TIME = cast("TaskRunner[Any]", ThreadPoolTaskRunner(max_workers=1))


@flow(
    name="extract-features",
    flow_run_name="extract-{encoder}-{data.name}",
    task_runner=_ONE_AT_A_TIME,
    persist_result=False,
)
def extract_features(
    encoder: _Encoder = "detr",
    data: Path = Path("data/scienceqa"),
    out: str = "shards",
    model: str | None = None,
    revision: str | None = None,
    random_weights: Annotated[int, Field(ge=0)] | None = None,
    preprocessing: Literal["reference", "native"] = "reference",
    resize: Resizer = "pil",
    alpha: Alpha = "white",
    precision: Precision | Literal["auto"] = "fp32",
    backend: Backend = "torch",
    device: str = "auto",
    batch_size: _Count | None = None,
    pad_to: Literal[1, 32] = 1,
    layout: Layout = "auto",
    id_column: str | None = None,
    image_column: str | None = None,
    licence: str | None = None,
    splits: tuple[str, ...] = (),
    max_failures: _Failures = "1%",
    format: Container = "hdf5",
    dtype: StorageDtype = "float16",
    shard_size: _Count | None = None,
    runner: RunnerName = "threads",
    address: str | None = None,
    num_workers: Annotated[int, Field(ge=1, le=1024)] | None = None,
) -> "State[ExtractionSummary]":
    """Compute patch features of all pictures of a data set and write them as shards.

    Interrupted, killed or failed, a new run with the same parameters continues.

    Args:
        encoder: detr, clip, vit, clip-rn101, resnet, tiny (needs no download) or hf:ORG/MODEL.
        data: Data set in ScienceQA's layout, folder of pictures, parquet file or folder, or folder
            written by Hugging Face datasets; relative to the checkout.
        out: Artifact root; the feature set becomes a folder in it. Relative to the checkout, or a
            URL as s3://bucket/shards.
        model: Local folder or hub id instead of the encoder's own.
        revision: Hub revision: branch, tag or commit.
        random_weights: Seed of weights that are drawn instead of loaded, for trials.
        preprocessing: As in Multimodal-CoT (reference), or as the model's authors did (native).
        resize: What resizes pictures: pil as in the reference, or torchvision, which is faster.
        alpha: Transparent pixels on white paper, or (drop) the colour that they hide.
        precision: Of the computation; auto takes the fastest within 1e-2 of fp32.
        backend: What runs the model: torch, compile (torch.compile) or openvino.
        device: auto, cpu, cuda, cuda:1, …
        batch_size: Pictures encoded together; empty means 8 on a CPU, 64 on a GPU.
        pad_to: 1, or 32 for fuller batches of DETR on a GPU.
        layout: What data is; auto looks at it.
        id_column: Of a table of pictures: what identifies them.
        image_column: Of a table of pictures: what holds them.
        licence: Of the pictures, where the data set does not say it.
        splits: Only the pictures of these splits; none named means all.
        max_failures: Pictures that may fail: a number, or a percentage such as 1%.
        format: Of the shards.
        dtype: Of the stored features.
        shard_size: Rows in a shard; empty means 256 MiB, 1024 rows at most.
        runner: What makes the shards: this process (threads), or workers of Dask or Ray.
        address: Of a cluster that runs, tcp://host:8786 of Dask or ray://host:10001 of Ray; auto is
            a Ray cluster on this machine. Empty starts a cluster here and ends it.
        num_workers: Of a cluster that is started here; empty means one for each GPU, else one.
    """
    from mmcot_data.extraction import ExtractionConfig
    from pipelines import artifacts
    from pipelines.extraction_run import run_extraction

    try:
        workers = WorkersConfig(
            runner=runner, address=address, num_workers=num_workers, device=device
        )
        config = ExtractionConfig(
            data=data,
            out=out if is_remote(out) else Path(out),
            encoder=EncoderConfig(
                name=encoder,
                model=model,
                revision=revision,
                random_weights=random_weights,
                preprocessing=preprocessing,
                resize=resize,
                alpha=alpha,
                precision=precision,
                backend=backend,
                device=device,
            ),
            layout=layout,
            id_column=id_column,
            image_column=image_column,
            licence=licence,
            splits=splits or None,
            format=format,
            dtype=dtype,
            shard_size=shard_size,
            batch_size=batch_size,
            pad_to=pad_to,
            max_failures=str(max_failures),
        )
    except (MmcotError, ValueError) as error:
        return fail(error)
    try:
        summary = run_extraction(config, workers)
    except (MmcotError, OSError) as error:
        return fail(error)
    get_run_logger().info("%s", artifacts.describe(summary))
    get_run_logger().info("next: mmcot-train --features %s", summary.folder)
    return Completed(message=artifacts.describe(summary), data=summary)
