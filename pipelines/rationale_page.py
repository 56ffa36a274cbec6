"""What people see of a table of rationales in Prefect's web interface."""

from pathlib import Path

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from mmcot_data.questions import read_questions
from mmcot_data.rationale_coverage import rationale_coverage
from mmcot_data.rationales import read_rationales
from pipelines.page import artifact_key, artifact_link, command_text, summary_table
from pipelines.quantities import count_text

__all__ = ["publish_rationales", "training_options"]

_NUM_SHOWN = 50
_USES = {
    "gold": "--stage answer --prompt-format QCMG-A --rationales {}",
    "stage1": "--stage answer --prompt-format QCMG-A --rationales {}",
    "stage1-kfold": "--train-rationales {}",
    "teacher": "--target-rationales {}",
}
"""What mmcot-train is told to use rationales, by what made them."""


def training_options(by: str, producer: str) -> str:
    """What mmcot-train is told to use rationales.

    Args:
        by: What made them, as the flow calls it.
        producer: Name of their table.
    """
    return _USES[by].format(producer)


def publish_rationales(artifacts: Path, by: str, producer: str, path: Path) -> int:
    """Publish a summary, the coverage by split, and the first rationales.

    Args:
        artifacts: The artifact root.
        by: What made them, as the flow calls it.
        producer: Name of the table.
        path: The table.

    Returns:
        How many rationales there are.

    Raises:
        DataError: If the table or the questions can't be read.
    """
    questions = read_questions(artifacts)
    keys = {
        part: artifact_key("rationales", producer, part)
        for part in ("summary", "coverage", "samples")
    }
    summary_link = f"See also: {artifact_link('summary', keys['summary'])}"
    create_table_artifact(
        rationale_coverage(artifacts, questions, producer),
        key=keys["coverage"],
        description=f"What `{path}` has, by split. {summary_link}",
    )
    rows = read_rationales(path, questions)
    create_table_artifact(
        [
            {"question": row.question_id, "sample": row.sample, "rationale": row.rationale}
            for row in rows[:_NUM_SHOWN]
        ],
        key=keys["samples"],
        description=f"The first rationales of `{path}`. {summary_link}",
    )
    facts = {
        "rationales": count_text(len(rows)),
        "questions": f"{count_text(len({row.question_id for row in rows}))} of "
        f"{count_text(len(questions))}",
        "made by": by,
        "place": f"`{path}`",
    }
    links = " · ".join(artifact_link(part, key) for part, key in keys.items() if part != "summary")
    command = f"mmcot-train --features {artifacts / 'detr'} {training_options(by, producer)}"
    create_markdown_artifact(
        markdown=f"""# {path}

{summary_table(facts)}

See also: {links}

## Next

Train with them, here with DETR features:

{command_text(command)}
""",
        key=keys["summary"],
        description=f"`{path}`: {count_text(len(rows))} rationales",
    )
    return len(rows)
