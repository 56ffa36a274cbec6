"""What ``prepare-data`` says in the end: what was done, where it can be seen, what to do next."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact

from pipelines.page import artifact_key, artifact_link, command_text
from pipelines.prepare_steps import Steps
from pipelines.rationale_page import training_options

__all__ = ["GOLD", "Ready", "publish_prepared", "training_commands"]

GOLD = "gold"
"""Who makes the rationales, and what their table is called."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """What there is to train with."""

    root: str
    features: Sequence[Any]
    """Places of feature sets."""
    captions: str | None
    """Their producer."""
    rationales: str | None
    """The prompt format of the gold ones."""


def training_commands(ready: Ready) -> list[str]:
    """What to train with what there is."""
    reads = " ".join(["--features", *map(str, ready.features)])
    if not ready.features:
        reads = f"--artifacts {ready.root}"
    format = " --prompt-format QCM-LE" if ready.rationales == "QCM-LE" else ""
    output = "" if ready.features else " --output runs/text"
    commands = [f"mmcot-train {reads}{format}{output}"]
    if ready.captions is not None:
        commands.append(
            f"mmcot-train {reads}{format} --captions {ready.captions} --output runs/captions"
        )
    if ready.rationales is not None:
        commands.append(f"mmcot-train {reads} {training_options(GOLD, GOLD)} --output runs/{GOLD}")
    return commands


def publish_prepared(key: str, data: Path, steps: Steps, ready: Ready) -> None:
    """What was done, where it can be seen, and what to do next."""
    rows = "\n".join(step.table_row() for step in steps.done)
    # Not in the table, whose cells Prefect does not wrap.
    said = "\n".join(
        f"* {step.name}: {' '.join(step.message.split())}" for step in steps.done if step.message
    )
    links = [artifact_link("progress", f"{key}-progress")]
    links += [
        artifact_link(Path(str(folder)).name, artifact_key("features", folder.name, "summary"))
        for folder in ready.features
    ]
    if ready.captions is not None:
        name = artifact_key("captions", ready.captions, "summary")
        links.append(artifact_link(f"captions {ready.captions}", name))
    if ready.rationales is not None:
        name = artifact_key("rationales", GOLD, "summary")
        links.append(artifact_link(f"rationales {GOLD}", name))
    if steps.failed:
        next_text = (
            "Do what the explanations of the failed steps say, then run `prepare-data` again with "
            "the same parameters: it skips what is there."
        )
        if ready.features:
            next_text += "\n\nMeanwhile, with what there is:"
    else:
        next_text = "Train both stages; with captions; and from gold rationales, as an upper bound:"
    create_markdown_artifact(
        markdown=f"""# {ready.root}, from {data}

| step | result | time |
| --- | --- | --- |
{rows}

{said}

See also: {" · ".join(links)}

## Next

{next_text}

{command_text(*training_commands(ready))}

A relative path is relative to the folder of the checkout that the run worked in.
""",
        key=f"{key}-summary",
        description=f"{len(steps.done) - len(steps.failed)} of {len(steps.done)} steps of "
        f"`{ready.root}` are done, {steps.num_there} of them were before.",
    )
