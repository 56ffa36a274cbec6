"""Steps one after the other: what each did, how long it took, and what is to be done about it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from prefect import Flow, get_run_logger
from prefect.client.schemas.objects import State

from pipelines.page import run_link
from pipelines.quantities import duration_text
from pipelines.work_progress import WorkProgress

__all__ = ["Step", "Steps"]

Outcome = Literal["made now", "was there already", "failed", "not tried"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What became of one step."""

    name: str
    outcome: Outcome
    message: str
    """What it made; why it failed; what it waits for."""
    seconds: float = 0.0
    flow_run: UUID | None = None
    """Of a step that is a subflow."""
    result: Any = None
    """What the flow or task returned, if the step is done."""

    @property
    def is_done(self) -> bool:
        """Whether what it is to make is there."""
        return self.outcome in ("made now", "was there already")

    def table_row(self) -> str:
        """The step as a row of a markdown table."""
        name = self.name if self.flow_run is None else run_link(self.name, self.flow_run)
        seconds = "" if self.outcome == "not tried" else duration_text(self.seconds)
        return f"| {name} | {self.outcome} | {seconds} |"


@dataclass(slots=True)
class Steps:
    """Runs steps; one that fails does not stop those that don't need it."""

    total: int
    progress: WorkProgress
    done: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.progress(0, self.total)

    @property
    def failed(self) -> list[Step]:
        """Those whose product is not there."""
        return [step for step in self.done if not step.is_done]

    @property
    def num_there(self) -> int:
        """Steps whose product was there before."""
        return sum(step.outcome == "was there already" for step in self.done)

    def run(
        self,
        name: str,
        work: Callable[..., Any],
        parameters: Mapping[str, Any],
        was_there: Callable[[Any], bool],
        *needed: Step,
    ) -> Step:
        """Run a step, unless what it needs is missing.

        Args:
            name: Of the step.
            work: A flow or task.
            parameters: Of the flow or task.
            was_there: Whether its result was there before, by the result.
            *needed: Steps that must have been done.
        """
        if missing := [step.name for step in needed if not step.is_done]:
            step = Step(name=name, outcome="not tried", message=f"it needs: {', '.join(missing)}")
        else:
            step = _run(name, work, parameters, was_there)
        self.done.append(step)
        get_run_logger().info("%s: %s", step.name, step.outcome)
        self.progress(len(self.done), self.total)
        return step

    def explain_failures(self) -> str:
        """The steps that are not done, each with its explanation, and what to do."""
        lines = [f"  {step.name}: {step.message}" for step in self.failed]
        return (
            f"{len(lines)} of {len(self.done)} steps are not done:\n"
            + "\n".join(lines)
            + "\nThe others are. Do what the explanations say, then run prepare-data again with "
            "the same parameters: it skips what is there."
        )


def _run(
    name: str,
    work: Callable[..., Any],
    parameters: Mapping[str, Any],
    was_there: Callable[[Any], bool],
) -> Step:
    start = time.monotonic()
    state: State[Any] = work(**parameters, return_state=True)
    seconds = time.monotonic() - start
    is_flow = isinstance(work, Flow)
    outcome: Outcome = "failed"
    result, message = None, state.message or f"it ended {state.name}"
    if state.is_completed():
        result = state.result()
        outcome = "was there already" if was_there(result) else "made now"
        message = message if is_flow else ""
    return Step(
        name=name,
        outcome=outcome,
        message=message,
        seconds=seconds,
        flow_run=state.state_details.flow_run_id if is_flow else None,
        result=result,
    )
