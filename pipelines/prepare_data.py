"""The flow ``prepare-data``: the other flows one after the other, up to what training reads."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from mmcot_data.captioning import CAPTIONERS
from mmcot_data.downloads.config import Source
from mmcot_data.encoders import ENCODERS, Precision
from mmcot_data.errors import DataError
from mmcot_data.question_data import read_data
from mmcot_data.sample import draw_sample
from mmcot_data.shards.remote import is_remote
from mmcot_data.shards.schema import Container
from mmcot_data.tables import write_tables
from mmcot_data.text_artifacts import artifact_path
from pipelines.caption_images import caption_images_flow
from pipelines.download_scienceqa import download_scienceqa
from pipelines.extract_features import extract_features
from pipelines.generate_rationales import generate_rationales
from pipelines.outcomes import fail, is_io_error
from pipelines.page import artifact_key
from pipelines.prepare_steps import Step, Steps
from pipelines.prepare_summary import GOLD, Ready, publish_prepared, training_commands
from pipelines.task_runners import RunnerName
from pipelines.work_progress import WorkProgress

__all__ = ["prepare_data"]

_Encoder = Annotated[str, Field(pattern=f"^({'|'.join(ENCODERS)}|hf:.+)$")]
_Captioner = Annotated[str, Field(pattern=f"^({'|'.join(CAPTIONERS)}|hf:.+)$")]
_Failures = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^\d+(\.\d+)?%$|^\d+$")]


@task(name="draw-sample", cache_policy=NO_CACHE, persist_result=False)
def _draw_sample(data: Path, num_questions: int) -> bool:
    """Draw the sample; whether that was not necessary."""
    was_there = data.exists()
    key = artifact_key("sample", data.name, "progress")
    with closing(WorkProgress(key, "questions")) as progress:
        draw_sample(data, num_questions=num_questions, num_workers=1, on_progress=progress)
    return was_there


@task(
    name="write-question-tables",
    retries=2,
    retry_delay_seconds=[1, 10],
    retry_jitter_factor=0.5,
    retry_condition_fn=is_io_error,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _write_tables(data: Path, out: Path) -> bool:
    """Write the tables that come straight from the data set; whether they were there."""
    was_there = (out / "questions.parquet").exists()
    write_tables(read_data(data), out)
    return was_there


@flow(name="prepare-data", flow_run_name="prepare-{dataset}-into-{out}", persist_result=False)
def prepare_data(
    dataset: Literal["scienceqa", "aokvqa", "sample"] = "scienceqa",
    data: Path | None = None,
    out: str = "shards",
    encoders: Annotated[tuple[_Encoder, ...], Field(min_length=1)] = ("detr",),
    captioner: _Captioner | None = None,
    rationales: Literal["QCM-E", "QCM-LE"] | None = "QCM-E",
    source: Source | None = None,
    mirrors: tuple[str, ...] = (),
    num_questions: Annotated[int, Field(ge=100, le=1_000_000)] = 6000,
    precision: Precision | Literal["auto"] = "fp32",
    device: str = "auto",
    splits: tuple[Literal["train", "val", "test"], ...] = (),
    max_failures: _Failures = "1%",
    format: Container = "hdf5",
    shard_size: Annotated[int, Field(ge=1, le=100_000)] | None = None,
    runner: RunnerName = "threads",
    address: str | None = None,
    num_workers: Annotated[int, Field(ge=1, le=1024)] | None = None,
) -> State[list[Step]]:
    """Prepare all that training reads: data set, question tables, rationales, features, captions.

    Runs the other flows one after the other. What is there already is not made again: after an
    interruption or a failure, a new run with the same parameters continues. Where a step fails,
    those that do not need it go on, and the run ends with the list.

    Args:
        dataset: scienceqa, aokvqa, or sample, which is drawn here and needs no network.
        data: Folder of the data set; empty means data/scienceqa, data/aokvqa or data/sample.
            Relative to the checkout.
        out: Artifact root: folder, relative to the checkout, or URL as s3://bucket/shards.
        encoders: One feature set each: detr, clip, vit, clip-rn101, resnet, tiny (needs no
            download) or hf:ORG/MODEL.
        captioner: vit-gpt2, blip, blip2, instructblip, tiny (needs no download) or hf:ORG/MODEL;
            empty makes no captions.
        rationales: Table of the data set's own rationales: solution (QCM-E), or lecture and
            solution (QCM-LE). Training that learns from them finds them without it, too; empty
            makes none.
        source: hub or official; empty means hub for ScienceQA.
        mirrors: Servers that have the files of the data set under the same paths.
        num_questions: Of the sample.
        precision: Of the encoders; auto takes the fastest within 1e-2 of fp32.
        device: auto, cpu, cuda, cuda:1, …
        splits: Only the pictures of these splits; none named means all.
        max_failures: Pictures that may fail: a number, or a percentage such as 1%.
        format: Of the shards.
        shard_size: Rows in a shard; empty means 256 MiB, 1024 rows at most.
        runner: What makes the shards: this process (threads), or workers of Dask or Ray.
        address: Of a cluster that runs, tcp://host:8786 of Dask or ray://host:10001 of Ray; auto is
            a Ray cluster on this machine. Empty starts a cluster here and ends it.
        num_workers: Of a cluster that is started here; empty means one for each GPU, else one.
    """
    place = data or Path("data") / dataset
    is_folder = not is_remote(out)
    if (error := _find_contradiction(out, encoders, captioner, rationales)) is not None:
        return fail(error)
    key = artifact_key("prepare", place.name, Path(out).name)
    progress = WorkProgress(f"{key}-progress", "steps", shows_rate=False)
    total = 1 + is_folder + (rationales is not None) + len(encoders) + (captioner is not None)
    steps = Steps(total, progress)
    if dataset == "sample":
        sample = {"data": place, "num_questions": num_questions}
        there = steps.run("sample", _draw_sample, sample, bool)
    else:
        request = {"dataset": dataset, "source": source, "mirrors": mirrors, "splits": splits}
        there = steps.run(
            "download-scienceqa",
            download_scienceqa,
            {"out": place, **request},
            lambda summary: summary.was_there,
        )
    made_rationales = made_captions = None
    if is_folder:
        where = {"data": place, "out": Path(out)}
        tables = steps.run("question tables", _write_tables, where, bool, there)
        if rationales is not None:
            existed = artifact_path(Path(out), "rationales", GOLD).is_file()
            made_rationales = steps.run(
                f"generate-rationales, {GOLD}",
                generate_rationales,
                {"by": GOLD, "artifacts": Path(out), "prompt_format": rationales},
                lambda _: existed,
                tables,
            )
    shared = {"data": place, "device": device, "splits": splits, "max_failures": max_failures}
    extraction = {"precision": precision, "format": format, "shard_size": shard_size}
    workers = {"runner": runner, "address": address, "num_workers": num_workers}
    feature_sets = [
        steps.run(
            f"extract-features, {encoder}",
            extract_features,
            {"encoder": encoder, "out": out, **shared, **extraction, **workers},
            lambda summary: not summary.num_extracted,
            there,
        )
        for encoder in encoders
    ]
    if captioner is not None:
        made_captions = steps.run(
            f"caption-images, {captioner}",
            caption_images_flow,
            {"captioner": captioner, "out": Path(out), **shared},
            lambda summary: not summary.num_made,
            there,
        )
    progress.close()
    ready = Ready(
        root=out,
        features=[step.result.folder for step in feature_sets if step.is_done],
        captions=made_captions.result.path.stem
        if made_captions and made_captions.is_done
        else None,
        rationales=rationales if made_rationales and made_rationales.is_done else None,
    )
    publish_prepared(key, place, steps, ready)
    if steps.failed:
        return fail(DataError(steps.explain_failures()))
    text = f"{out}: all {total} steps are done, {steps.num_there} of them were before"
    for line in training_commands(ready):
        get_run_logger().info("next: %s", line)
    return Completed(message=text, data=steps.done)


def _find_contradiction(
    out: str, encoders: Sequence[str], captioner: str | None, rationales: str | None
) -> Exception | None:
    if len(set(encoders)) < len(encoders):
        return ValueError(f"encoders are {', '.join(encoders)}, expected each only once")
    texts = {"captioner": captioner, "rationales": rationales}
    if is_remote(out) and (given := [name for name, value in texts.items() if value is not None]):
        return ValueError(
            f"{' and '.join(given)}: captions and rationales are written into a folder, and out is "
            f"{out}; expected them empty (-p rationales=null), or a folder as out"
        )
    return None
