"""The flow ``download-scienceqa``: fetch and verify a data set."""

from pathlib import Path
from typing import Annotated, Literal

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from mmcot_data.downloads.config import DatasetName, DownloadConfig, Source
from mmcot_data.downloads.job import DownloadReports
from mmcot_data.downloads.run import DownloadSummary, download
from mmcot_data.errors import MmcotError
from pipelines.outcomes import fail, is_io_error
from pipelines.page import artifact_key, artifact_link, command_text, summary_table
from pipelines.quantities import bytes_text
from pipelines.work_progress import WorkProgress

__all__ = ["download_scienceqa"]


@task(
    name="fetch-and-verify",
    retries=2,
    retry_delay_seconds=[10, 60],
    retry_jitter_factor=0.5,
    retry_condition_fn=is_io_error,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _fetch(config: DownloadConfig, verify: bool) -> DownloadSummary:
    key = artifact_key("download", config.out.name)
    fetched = WorkProgress(f"{key}-bytes", "fetched", show=bytes_text)
    written = WorkProgress(f"{key}-pictures", "pictures", unit_of_rate="pictures")
    reports = DownloadReports(
        say=get_run_logger().info,
        fetched=lambda _, done, total: fetched(done, total),
        written=written,
    )
    try:
        return download(config, reports, verify=verify)
    finally:
        fetched.close()
        written.close()


@flow(
    name="download-scienceqa",
    flow_run_name="download-{dataset}-{out.name}",
    persist_result=False,
)
def download_scienceqa(
    out: Path = Path("data/scienceqa"),
    dataset: DatasetName = "scienceqa",
    source: Source | None = None,
    mirrors: tuple[str, ...] = (),
    revision: str | None = None,
    splits: tuple[Literal["train", "val", "test"], ...] = (),
    num_parallel: Annotated[int, Field(ge=1, le=64)] = 4,
    prove_pictures: Path | None = None,
    keep_archives: bool = False,
    verify: bool = False,
) -> State[DownloadSummary]:
    """Fetch a data set, prove that it is what was published, and record where it came from.

    Interrupted, killed or failed, a new run with the same parameters continues. Where the data set
    is there already, nothing is fetched.

    Args:
        out: Folder that becomes the data set; relative to the checkout.
        dataset: scienceqa, or aokvqa with the COCO pictures that it needs.
        source: hub (Hugging Face's copy, without choice pictures) or official (the authors' zips);
            empty means hub for ScienceQA.
        mirrors: Servers that have the same files under the same paths; tried in their order.
        revision: Branch, tag or commit instead of the one that was proved.
        splits: Only the pictures of these splits; none named means all.
        num_parallel: Files fetched at a time.
        prove_pictures: Official images folder, or a part of it, to compare the hub's pictures with.
        keep_archives: Keep what the pictures were taken from.
        verify: Of a finished download, compare the sha256 of every file.
    """
    try:
        config = DownloadConfig(
            dataset=dataset,
            out=out,
            source=source,
            mirrors=mirrors,
            revision=revision,
            splits=splits or None,
            num_parallel=num_parallel,
            prove_pictures=prove_pictures,
            keep_archives=keep_archives,
        )
        summary = _fetch(config, verify)
    except (ValueError, MmcotError, OSError) as error:
        return fail(error)
    _publish(summary)
    there = "; all of it was there already" if summary.was_there else ""
    text = f"{summary.out}: {_counts(summary)}{there}"
    get_run_logger().info("%s", text)
    get_run_logger().info("next: mmcot-data extract %s --encoder detr --out shards", summary.out)
    return Completed(message=text, data=summary)


def _counts(summary: DownloadSummary) -> str:
    return ", ".join(f"{value:,} {name}" for name, value in summary.counts.items())


def _publish(summary: DownloadSummary) -> None:
    rows = {
        "data set": f"{summary.dataset} from {summary.source}, revision {summary.revision}",
        "licence": summary.licence,
        "counts": _counts(summary),
        "proof": ", ".join(f"{value:,} {name}" for name, value in summary.proof.items()),
        "files": f"{summary.num_files:,}, {bytes_text(summary.nbytes)}",
        "fetched": "nothing, all of it was there already"
        if summary.was_there
        else f"{bytes_text(summary.nbytes_fetched)}; {summary.num_verified:,} of "
        f"{summary.num_fetched:,} files compared with a digest known in advance",
        "room at most": bytes_text(summary.peak_nbytes) if summary.peak_nbytes else None,
        "place": f"`{summary.out}`",
    }
    key = artifact_key("download", summary.out.name)
    bars = "" if summary.was_there else artifact_link("bytes fetched", f"{key}-bytes")
    commands = command_text(
        f"prefect deployment run extract-features --watch -p data={summary.out}",
        f"mmcot-data extract {summary.out} --encoder detr --out shards",
    )
    create_markdown_artifact(
        markdown=f"""# {summary.out}

{summary_table(rows)}

{bars}

## Next

Features of the pictures; the one command with this page, the other without:

{commands}
""",
        key=f"{key}-summary",
        description=f"`{summary.out}`: {_counts(summary)}",
    )
