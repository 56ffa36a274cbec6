"""Demonstrations that the teacher writes itself: Auto-CoT (Zhang et al., arXiv 2210.03493).

The train questions are clustered. In each cluster, from its centre outwards, a question that is
short enough gets a chain by zero-shot-CoT; the first whose chain is short enough, complete and ends
in an answer demonstrates its cluster. No right answer is looked at. Every chain is a row of
``rationales/<producer>.demonstrations.parquet``; those in use are marked as kept.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from mmcot_data.errors import GenerationError
from mmcot_data.growing_artifact import GrowingArtifact, Row, grow_artifact
from mmcot_data.questions import OPTION_LETTERS, Question
from mmcot_data.rationales import RATIONALE_KEY
from mmcot_data.teacher.chains import Chain, Item, Manner, write_chain
from mmcot_data.teacher.clusters import Placed, cluster_texts
from mmcot_data.teacher.config import TeacherConfig
from mmcot_data.teacher.opening import TeacherInWaiting
from mmcot_data.teacher.prompts import (
    Demonstration,
    prompts_sha256,
    question_block,
    without_thinking,
)
from mmcot_data.teacher.table import TEACHER_SCHEMA, make_row
from mmcot_data.text_artifacts import artifact_path

__all__ = ["automatic_demonstrations", "demonstrations_producer"]

_SCHEMA = pl.Schema({**TEACHER_SCHEMA, "cluster": pl.Int32(), "distance": pl.Float64()})


def demonstrations_producer(producer: str) -> str:
    """The name of the table that holds the demonstrations of a producer."""
    return f"{producer}.demonstrations"


def automatic_demonstrations(
    config: TeacherConfig,
    waiting: TeacherInWaiting,
    questions: Sequence[Question],
    captions: Mapping[str, str],
    on_progress: Callable[[int, int], object],
) -> list[Demonstration]:
    """Choose and write the demonstrations, or read them if that is done.

    Args:
        config: The request.
        waiting: The teacher.
        questions: All questions of the artifact root.
        captions: Caption by question id.
        on_progress: Told how many clusters have theirs, and how many there are.

    Raises:
        DataError: If there are too few train questions, or the demonstrations were made otherwise.
        GenerationError: If no cluster gives one, or the teacher can't go on.
    """
    train = sorted((q for q in questions if q.split == "train"), key=lambda q: q.position)
    blocks = [question_block(q, captions.get(q.question_id)) for q in train]
    path = artifact_path(config.artifacts, "rationales", demonstrations_producer(config.producer))
    settings = _settings(config, waiting, train, blocks)
    with grow_artifact(path, _SCHEMA, RATIONALE_KEY, settings) as artifact:
        if not path.is_file():
            clusters = cluster_texts(blocks, config.clusters, config.seed)
            _fill(artifact, config, waiting, train, blocks, clusters, on_progress)
            rank = {question.question_id: place for place, question in enumerate(train)}
            artifact.finish(rank, {"made_with": waiting.open().notes()})
        rows = sorted((row for row in artifact.rows() if row["kept"]), key=lambda r: r["cluster"])
    block_of = {q.question_id: block for q, block in zip(train, blocks, strict=True)}
    return [
        Demonstration(
            block=block_of[row["question_id"]],
            rationale=without_thinking(row["completion"]),
            letter=OPTION_LETTERS[row["answer"]],
            question_id=row["question_id"],
        )
        for row in rows
    ]


def _settings(
    config: TeacherConfig,
    waiting: TeacherInWaiting,
    train: Sequence[Question],
    blocks: Sequence[str],
) -> dict[str, Any]:
    clusters = config.clusters
    pool = "".join(f"{q.question_id}\n{b}\n" for q, b in zip(train, blocks, strict=True))
    return {
        "producer": "teacher",
        "purpose": "demonstrations for auto-cot",
        "method": "zero-shot-cot",
        "teacher": waiting.settings,
        "max_new_tokens": config.max_new_tokens,
        "seed": config.seed,
        "prompts_sha256": prompts_sha256(),
        "captions": config.captions,
        "questions_sha256": hashlib.sha256(pool.encode()).hexdigest(),
        "num_clusters": clusters.num_clusters,
        "vectors": clusters.model or "tf-idf",
        "vectors_revision": clusters.revision,
        "max_words": clusters.max_words,
        "max_lines": clusters.max_lines,
        "max_tries": clusters.max_tries,
    }


def _fill(
    artifact: GrowingArtifact,
    config: TeacherConfig,
    waiting: TeacherInWaiting,
    train: Sequence[Question],
    blocks: Sequence[str],
    clusters: Sequence[Sequence[Placed]],
    on_progress: Callable[[int, int], object],
) -> None:
    """Try questions, in each cluster one after the other, in all clusters side by side."""
    limits = config.clusters
    untried = {
        number: [each for each in members if len(blocks[each[0]].split()) <= limits.max_words][
            : limits.max_tries
        ]
        for number, members in enumerate(clusters)
    }
    manner = _zero_shot(config)
    while asked := {number: left.pop(0) for number, left in untried.items() if left}:
        rows: dict[int, Row] = {}
        items: dict[int, Item] = {}
        for number, (place, _) in asked.items():
            item = Item(train[place], 0, blocks[place])
            if item.key in artifact:
                rows[number] = artifact[item.key]
            else:
                items[number] = item
        numbers = list(items)
        if numbers:
            chains = [write_chain(items[number], manner) for number in numbers]
            for group in waiting.open().work(chains):
                new = {
                    numbers[place]: _row(
                        items[numbers[place]], chain, numbers[place], asked, config
                    )
                    for place, chain in group
                }
                artifact.add(new.values())
                rows |= new
        for number, row in rows.items():
            if row["kept"]:
                untried[number] = []
        kept = sum(bool(row["kept"]) for row in artifact.rows())
        on_progress(kept, len(clusters))
    if not any(row["kept"] for row in artifact.rows()):
        raise GenerationError(
            f"none of {len(clusters)} clusters of train questions gives a demonstration: the "
            f"{len(artifact)} chains that were tried have no answer that can be read, are cut off "
            f"or have more than {limits.max_lines} lines, and only questions of at most "
            f"{limits.max_words} words are tried. Use a stronger teacher, or other limits with "
            "another producer name"
        )


def _row(
    item: Item, chain: Chain, number: int, asked: Mapping[int, Placed], config: TeacherConfig
) -> dict[str, Any]:
    lines = [line for line in without_thinking(chain.completion).splitlines() if line.strip()]
    fits = (
        chain.answer is not None
        and chain.finish_reason == "stop"
        and 0 < len(lines) <= config.clusters.max_lines
    )
    extras = {"kept": fits, "cluster": number, "distance": asked[number][1]}
    return make_row(item, chain, "zero-shot-cot") | extras


def _zero_shot(config: TeacherConfig) -> Manner:
    return Manner(
        method="zero-shot-cot",
        extraction="two-step",
        temperature=0.0,
        top_p=1.0,
        max_new_tokens=config.max_new_tokens,
        max_steps=config.max_steps,
        seed=config.seed,
    )
