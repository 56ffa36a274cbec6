"""``mmcot-data rationales teacher``: rationales by a language model."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from mmcot_data.cli.rationales.arguments import add_artifacts, add_producer
from mmcot_data.cli.rationales.teacher_arguments import (
    add_demonstrations,
    add_endpoint,
    add_local,
    add_request,
)
from mmcot_data.cli.subcommand import Subcommands, add_subcommand, progress_bar

if TYPE_CHECKING:
    from mmcot_data.teacher import RationaleSummary, TeacherConfig

__all__ = ["add_parser"]

_EXAMPLES = """\
  a model on this machine:   mmcot-data rationales teacher shards --model Qwen/Qwen3-8B --limit 20
  behind a local server:     mmcot-data rationales teacher shards --model Qwen/Qwen3-8B \\
                               --url http://localhost:8000/v1 --no-thinking
  behind a paid service:     OPENAI_API_KEY=… mmcot-data rationales teacher shards \\
                               --model gpt-4o-mini --url https://api.openai.com/v1 --limit 20
  with demonstrations:       mmcot-data rationales teacher shards --model models/qwen \\
                               --method few-shot-cot --demonstrations-from gold \\
                               --demonstration-ids 2,17,29 --producer few-shot
  chosen by clustering:      mmcot-data rationales teacher shards --model models/qwen \\
                               --method auto-cot --clusters 4 --producer auto-cot

Fine-tune-CoT: a large teacher writes several rationales for each training question, those that
lead to the right answer are kept, and a small model learns to write them:
  mmcot-data rationales teacher shards --model Qwen/Qwen3-8B --samples 4 --temperature 0.7 \\
    --keep correct
  mmcot-train --features shards/detr --target-rationales teacher

--limit 20 is a trial; without it the same command makes the others too. More --samples can be
added later. Interrupted or killed, the same command goes on; what is there is not asked again.
"""

_LOCAL = ("revision", "chat", "precision", "device", "batch_size")
_ENDPOINT = (
    *("api_key_variable", "concurrency", "timeout", "retries", "limit_parameter"),
    "no_thinking",
)
_CLUSTERS = {
    "clusters": "num_clusters",
    "cluster_model": "model",
    "cluster_revision": "revision",
    "max_words": "max_words",
    "max_lines": "max_lines",
    "max_tries": "max_tries",
}

_SAME = (
    *("artifacts", "producer", "method", "limit", "samples", "temperature", "top_p"),
    *("max_new_tokens", "seed", "captions", "answer_extraction", "keep", "max_steps"),
    *("demonstrations", "demonstrations_from"),
)
"""Arguments that have the names of the request's fields."""


def add_parser(producers: Subcommands) -> None:
    """Add the subcommand."""
    parser = add_subcommand(
        producers,
        "teacher",
        _run,
        summary="Let a language model, local or behind an endpoint, write rationales.",
        examples=_EXAMPLES,
    )
    add_artifacts(parser)
    add_producer(parser, "teacher")
    add_request(parser)
    add_local(parser)
    add_endpoint(parser)
    add_demonstrations(parser)


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.teacher import Reports, generate_teacher_rationales

    try:
        config = _config(arguments)
    except ValueError as error:
        arguments.fail(str(error))
    with (
        progress_bar("demonstrations", "clusters") as demonstrated,
        progress_bar(config.producer, "rationales") as written,
    ):
        reports = Reports(
            demonstrated=demonstrated if config.method == "auto-cot" else lambda *_: None,
            written=written,
        )
        summary = generate_teacher_rationales(config, reports)
    _print_summary(summary, config)
    return 0


def _config(arguments: argparse.Namespace) -> "TeacherConfig":
    from mmcot_data.teacher import ClusterConfig, EndpointConfig, LocalConfig, TeacherConfig

    given = {
        name: value
        for name in (*_LOCAL, *_ENDPOINT)
        if (value := getattr(arguments, name)) is not None
    }
    wrong = [name for name in given if (name in _LOCAL) == (arguments.url is not None)]
    if wrong:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in wrong)
        where = "with --url" if arguments.url is not None else "without --url"
        raise ValueError(f"{flags} can't be given {where}")
    teacher: LocalConfig | EndpointConfig
    if arguments.url is None:
        teacher = LocalConfig(model=arguments.model, **given)
    else:
        teacher = EndpointConfig(model=arguments.model, url=arguments.url, **given)
    clusters: dict[str, Any] = {
        field: value
        for name, field in _CLUSTERS.items()
        if (value := getattr(arguments, name)) is not None
    }
    if clusters and arguments.method != "auto-cot":
        raise ValueError(f"{', '.join(clusters)}: only auto-cot chooses demonstrations by clusters")
    ids = (arguments.demonstration_ids or "").split(",")
    return TeacherConfig(
        teacher=teacher,
        clusters=ClusterConfig(**clusters),
        splits=tuple(arguments.split or ("train",)),
        demonstration_ids=tuple(each.strip() for each in ids if each.strip()),
        **{name: getattr(arguments, name) for name in _SAME},
    )


def _print_summary(summary: "RationaleSummary", config: "TeacherConfig") -> None:
    text = (
        f"{summary.path}: {summary.num_rationales} rationales of {summary.num_questions} questions"
    )
    if summary.num_samples > 1:
        text += f", {summary.num_samples} of each"
    text += f", {summary.num_new} written now" if summary.num_new else ", all there already"
    print(text)
    if summary.accuracy is not None:
        votes = ""
        if summary.majority_accuracy is not None:
            votes = f", {summary.majority_accuracy:.1%} of the questions by majority"
        print(
            f"{summary.accuracy:.1%} lead to the right answer{votes}; from "
            f"{summary.num_unanswered} no answer can be read; {summary.num_kept} are kept"
        )
    others = {
        reason: count
        for reason, count in summary.finish_reasons.items()
        if reason not in ("stop", "length")
    }
    if summary.num_truncated:
        share = summary.num_truncated / summary.num_rationales
        print(
            f"mmcot-data: {summary.num_truncated} rationales ({share:.1%}) were CUT OFF at "
            f"{config.max_new_tokens} tokens; to have them whole, write them under another "
            "--producer with a higher --max-new-tokens",
            file=sys.stderr,
        )
    if summary.num_only_thinking:
        print(
            f"mmcot-data: {summary.num_only_thinking} rationales have NO END OF THINKING "
            "(<think>), in the rationale, which is empty then, or in the answer; write them under "
            "another --producer with --no-thinking (for servers), a higher --max-new-tokens, or "
            "--answer-extraction direct",
            file=sys.stderr,
        )
    if others:
        listed = ", ".join(f"{count} {reason}" for reason, count in others.items())
        print(f"mmcot-data: not written in full: {listed}; see finish_reason", file=sys.stderr)
    if summary.num_kept:
        print(f"next: {_next_command(summary, config)}")
    else:
        print(
            "mmcot-data: no rationale is kept: look at prompt and completion in the table; a "
            "stronger teacher, demonstrations or more samples may help",
            file=sys.stderr,
        )


def _next_command(summary: "RationaleSummary", config: "TeacherConfig") -> str:
    if "train" not in config.splits:
        return (
            f"mmcot-data rationales vote {config.artifacts} {config.producer} --out votes.parquet"
        )
    if config.keep is None and summary.num_kept == summary.num_rationales:
        return f"mmcot-data rationales keep {config.artifacts} {config.producer} --rule correct"
    return (
        f"mmcot-train --artifacts {config.artifacts} --target-rationales {config.producer} "
        "(or --features FEATURE_SET)"
    )
