"""The flow ``caption-images``: captions of a data set's pictures by a model.

PyTorch is imported only in a run, as in ``extract_features``.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from mmcot_data.captioning import CAPTIONERS, CaptionConfig, CaptionerConfig
from mmcot_data.captioning.config import CaptionPrecision
from mmcot_data.captions import read_captions
from mmcot_data.encoders.base import Alpha
from mmcot_data.errors import MmcotError
from mmcot_data.sources import Layout
from mmcot_data.text_artifacts import read_made_by
from pipelines.outcomes import fail, is_io_error
from pipelines.page import artifact_key, artifact_link, command_text, summary_table
from pipelines.quantities import count_text, duration_text, rate_text
from pipelines.work_progress import WorkProgress

if TYPE_CHECKING:
    from mmcot_data.captioning.run import CaptionSummary

__all__ = ["caption_images_flow"]

_Captioner = Annotated[str, Field(pattern=f"^({'|'.join(CAPTIONERS)}|hf:.+)$")]
_Count = Annotated[int, Field(ge=1, le=100_000)]
_Failures = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^\d+(\.\d+)?%$|^\d+$")]
_NUM_SHOWN = 100
_MAX_FAILURES_SHOWN = 500


@task(
    name="caption",
    retries=2,
    retry_delay_seconds=[1, 10],
    retry_jitter_factor=0.5,
    retry_condition_fn=is_io_error,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _caption(config: CaptionConfig) -> "CaptionSummary":
    from mmcot_data.captioning.run import CaptionReports, caption_images

    key = artifact_key("captions", config.producer_name, "progress")
    progress = WorkProgress(key, "distinct pictures captioned", unit_of_rate="pictures")
    try:
        summary = caption_images(config, CaptionReports(captioned=progress))
    finally:
        progress.close()
    if summary.num_halved:
        get_run_logger().warning("%s", _halved_text(summary))
    return summary


@flow(name="caption-images", flow_run_name="caption-{captioner}-{data.name}", persist_result=False)
def caption_images_flow(
    captioner: _Captioner = "vit-gpt2",
    data: Path = Path("data/scienceqa"),
    out: Path = Path("shards"),
    producer: str | None = None,
    model: str | None = None,
    revision: str | None = None,
    random_weights: Annotated[int, Field(ge=0)] | None = None,
    prompt: str | None = None,
    max_new_tokens: _Count | None = None,
    num_beams: _Count | None = None,
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None,
    precision: CaptionPrecision = "auto",
    device: str = "auto",
    alpha: Alpha = "white",
    batch_size: _Count | None = None,
    layout: Layout = "auto",
    id_column: str | None = None,
    image_column: str | None = None,
    licence: str | None = None,
    splits: tuple[str, ...] = (),
    roles: tuple[str, ...] = (),
    max_failures: _Failures = "1%",
) -> "State[CaptionSummary]":
    """Caption the pictures of a data set and write captions/<producer>.parquet.

    Interrupted, killed or failed, a new run with the same parameters continues. Equal pictures are
    captioned once; captions of pictures that have changed are made anew.

    Args:
        captioner: vit-gpt2, blip, blip2, instructblip, tiny (needs no download) or hf:ORG/MODEL.
        data: Data set in any layout that extraction reads; relative to the checkout.
        out: Artifact root; the captions become a file in it. Relative to the checkout.
        producer: Name of the captions; empty means that of the captioner or model.
        model: Local folder or hub id instead of the captioner's own.
        revision: Hub revision: branch, tag or commit.
        random_weights: Seed of weights that are drawn instead of loaded, for trials.
        prompt: What is said to the model beside the picture; empty means the captioner's own.
        max_new_tokens: Longest caption; empty means the captioner's own.
        num_beams: Of beam search, 1 is greedy; empty means the captioner's own.
        repetition_penalty: Above 1 repeats less; empty means the captioner's own.
        precision: Of weights and computation; auto is bf16 on a GPU that has it, else fp32.
        device: auto, cpu, cuda, cuda:1, …
        alpha: Transparent pixels on white paper, or (drop) the colour that they hide.
        batch_size: Pictures captioned together; empty means 8 on a CPU, 16 on a GPU.
        layout: What data is; auto looks at it.
        id_column: Of a table of pictures: what identifies them.
        image_column: Of a table of pictures: what holds them.
        licence: Of the pictures, where the data set does not say it.
        splits: Only the pictures of these splits; none named means all.
        roles: Only the pictures in these roles, as question and choice_0; none named means all.
        max_failures: Pictures that may fail: a number, or a percentage such as 1%.
    """
    try:
        config = CaptionConfig(
            data=data,
            out=out,
            captioner=CaptionerConfig(
                name=captioner,
                model=model,
                revision=revision,
                random_weights=random_weights,
                prompt=prompt,
                max_new_tokens=max_new_tokens,
                num_beams=num_beams,
                repetition_penalty=repetition_penalty,
                alpha=alpha,
                precision=precision,
                device=device,
            ),
            producer=producer,
            layout=layout,
            id_column=id_column,
            image_column=image_column,
            licence=licence,
            splits=splits or None,
            roles=roles or None,
            batch_size=batch_size,
            max_failures=str(max_failures),
        )
        summary = _caption(config)
    except (ValueError, MmcotError, OSError) as error:
        return fail(error)
    _publish(config, summary)
    text = f"{summary.path}: {_counts(summary)}"
    get_run_logger().info("%s", text)
    get_run_logger().info("next: mmcot-train --features … --captions %s", config.producer_name)
    return Completed(message=text, data=summary)


def _counts(summary: "CaptionSummary") -> str:
    text = (
        f"{count_text(summary.num_captions)} of {count_text(summary.num_images)} pictures have "
        "captions; "
    )
    if not summary.num_made:
        return f"{text}all of it was there already"
    return (
        f"{text}{count_text(summary.num_made)} distinct ones captioned in "
        f"{duration_text(summary.seconds)} ({rate_text(summary.num_made / summary.seconds)}/s)"
    )


def _halved_text(summary: "CaptionSummary") -> str:
    return (
        f"memory was short: {count_text(summary.num_halved)} batches were captioned in halves; "
        "a smaller batch_size would be faster"
    )


def _publish(config: CaptionConfig, summary: "CaptionSummary") -> None:
    from mmcot_data.captioning.finished import read_failures

    producer = config.producer_name
    keys = {
        part: artifact_key("captions", producer, part)
        for part in ("summary", "samples", "failures", "progress")
    }
    captions = list(read_captions(summary.path).items())[:_NUM_SHOWN]
    table: list[dict[str, Any]] = [{"question": key, "caption": text} for key, text in captions]
    summary_link = f"See also: {artifact_link('summary', keys['summary'])}"
    create_table_artifact(
        table,
        key=keys["samples"],
        description=f"The first captions of question pictures in `{summary.path}`. {summary_link}",
    )
    failures = read_failures(read_made_by(summary.path))
    create_table_artifact(
        [
            {"question": question_id, "role": role, "reason": reason, "explanation": error}
            for (question_id, role), (reason, error) in list(failures.items())[:_MAX_FAILURES_SHOWN]
        ],
        key=keys["failures"],
        description=f"{count_text(len(failures))} pictures have no caption in `{summary.path}`; "
        f"the next run tries them again. {summary_link}",
    )
    facts = {
        "pictures": f"{count_text(summary.num_images)}, of which "
        f"{count_text(summary.num_distinct)} distinct ones can be used",
        "captions": _counts(summary),
        "without a caption": ", ".join(f"{count_text(n)} {r}" for r, n in summary.failed.items()),
        "short of memory": _halved_text(summary) if summary.num_halved else None,
        "data": f"`{config.data}`",
        "captioner": config.captioner.name,
        "its licence": config.captioner.facts().licence,
        "place": f"`{summary.path}`",
    }
    links = " · ".join(artifact_link(part, key) for part, key in keys.items() if part != "summary")
    create_markdown_artifact(
        markdown=f"""# {summary.path}

{summary_table(facts)}

See also: {links}

## Next

Train with captions in the context, here beside DETR features:

{command_text(f"mmcot-train --features {config.out / 'detr'} --captions {producer}")}

Or on the text alone:

{command_text(f"mmcot-train --artifacts {config.out} --captions {producer} --output runs/text")}
""",
        key=keys["summary"],
        description=f"`{summary.path}`: {_counts(summary)}",
    )
