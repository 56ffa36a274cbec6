"""The flow ``generate-rationales``: rationales by any producer."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from mmcot_data.errors import MmcotError
from mmcot_data.questions import read_questions
from mmcot_data.rationales import (
    KeepRule,
    gold_rationales,
    write_rationales_once,
)
from mmcot_data.shards.remote import is_remote
from mmcot_data.teacher import (
    EndpointConfig,
    LocalConfig,
    Method,
    Reports,
    TeacherConfig,
    generate_teacher_rationales,
)
from mmcot_data.text_artifacts import artifact_path
from pipelines.outcomes import fail, is_io_error
from pipelines.page import artifact_key
from pipelines.quantities import count_text
from pipelines.rationale_page import publish_rationales, training_options
from pipelines.work_progress import WorkProgress

if TYPE_CHECKING:  # training takes seconds to import, and `prefect deploy` imports every flow
    from mmcot_model.producers.kfold import KFoldConfig
    from mmcot_model.producers.stage1 import Stage1Config

__all__ = ["generate_rationales"]

_Split = Literal["train", "val", "test", "trainval", "minitrain", "minival", "minitest"]
_Count = Annotated[int, Field(ge=1, le=100_000)]
_USERS = {
    **dict.fromkeys(("splits", "samples", "temperature", "top_p"), ("stage1", "teacher")),
    **dict.fromkeys(("epochs", "max_steps"), ("stage1-kfold",)),
    **dict.fromkeys(("url", "limit", "keep"), ("teacher",)),
    **dict.fromkeys(("demonstrations", "demonstrations_from", "demonstration_ids"), ("teacher",)),
    "captions": ("stage1-kfold", "teacher"),
    "run": ("stage1",),
    "features": ("stage1", "stage1-kfold"),
}
"""Producers that a parameter has a meaning for."""


def _producer_task(function: Callable[..., Path]) -> Any:
    """A task for one producer; what is there already is not made again, so a retry is cheap."""
    return task(
        name=function.__name__.strip("_").replace("_", "-"),
        retries=2,
        retry_delay_seconds=[1, 30],
        retry_jitter_factor=0.5,
        retry_condition_fn=is_io_error,
        cache_policy=NO_CACHE,
        persist_result=False,
    )(function)


@_producer_task
def _gold(artifacts: Path, producer: str, prompt_format: str) -> Path:
    rationales = gold_rationales(read_questions(artifacts), prompt_format)
    path = artifact_path(artifacts, "rationales", producer)
    write_rationales_once(path, rationales, {"producer": "gold", "prompt_format": prompt_format})
    return path


@_producer_task
def _stage1(config: "Stage1Config") -> Path:
    from mmcot_model.producers.stage1 import write_stage1_rationales

    with closing(_progress(config.producer, "rationales")) as progress:
        return write_stage1_rationales(config, progress).path


@_producer_task
def _stage1_kfold(config: "KFoldConfig") -> Path:
    from mmcot_model.producers.kfold import write_kfold_rationales

    with closing(_progress(config.producer, "folds")) as progress:
        return write_kfold_rationales(config, progress).path


@_producer_task
def _teacher(config: TeacherConfig) -> Path:
    with closing(_progress(config.producer, "rationales")) as progress:
        return generate_teacher_rationales(config, Reports(written=progress)).path


def _progress(producer: str, unit: str) -> WorkProgress:
    return WorkProgress(artifact_key("rationales", producer), unit)


@flow(
    name="generate-rationales",
    flow_run_name="rationales-{by}-{artifacts.name}",
    persist_result=False,
)
def generate_rationales(
    by: Literal["gold", "stage1", "stage1-kfold", "teacher"] = "gold",
    artifacts: Path = Path("shards"),
    producer: str | None = None,
    prompt_format: Literal["QCM-E", "QCM-LE"] = "QCM-E",
    splits: tuple[_Split, ...] = (),
    samples: _Count = 1,
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0,
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0,
    seed: int = 42,
    batch_size: _Count | None = None,
    captions: str | None = None,
    model: str = "tiny",
    run: Path | None = None,
    features: str | None = None,
    folds: Annotated[int, Field(ge=2, le=100)] = 5,
    runs: Path = Path("runs"),
    epochs: Annotated[float, Field(gt=0)] | None = None,
    max_steps: _Count | None = None,
    url: str | None = None,
    method: Method = "zero-shot-cot",
    max_new_tokens: _Count = 512,
    limit: _Count | None = None,
    keep: KeepRule | None = None,
    demonstrations: Path | None = None,
    demonstrations_from: str | None = None,
    demonstration_ids: tuple[str, ...] = (),
) -> State[Path]:
    """Write rationales/<producer>.parquet: what stage 2 learns from and answers from.

    Interrupted, killed or failed, a new run with the same parameters continues.

    Args:
        by: gold (the data set's own), stage1 (a trained stage 1), stage1-kfold (models that have
            not seen the questions) or teacher (a language model).
        artifacts: Artifact root, with questions.parquet; relative to the checkout.
        producer: Name of the table; empty means the value of by.
        prompt_format: gold, stage1-kfold: solution (QCM-E), or lecture and solution (QCM-LE).
        splits: stage1 (none named: all), teacher (none named: train).
        samples: stage1, teacher: rationales a question.
        temperature: stage1, teacher: 0 writes what is most probable.
        top_p: stage1, teacher: draw from the most probable tokens of this probability.
        seed: Of sampling; stage1-kfold: of training.
        batch_size: stage1, a local teacher: texts at once; stage1-kfold: questions a step.
        captions: stage1-kfold, teacher: producer of captions that are added to the context.
        model: stage1-kfold: tiny, folder or hub id; teacher: folder, hub id or name at the url.
        run: stage1: run folder of mmcot-train.
        features: stage1-kfold: feature set, empty trains on the text; stage1: where it is now.
        folds: stage1-kfold: models.
        runs: stage1-kfold: folder of their run folders.
        epochs: stage1-kfold: passes over the questions; empty means as mmcot-train.
        max_steps: stage1-kfold: steps instead of the epochs.
        url: teacher: an OpenAI-compatible server; empty runs the model here.
        method: teacher: zero-shot-cot, few-shot-cot, auto-cot or least-to-most.
        max_new_tokens: teacher: of a rationale.
        limit: teacher: only the first questions of each split.
        keep: teacher: which rationales are marked to be used: all, correct or majority.
        demonstrations: few-shot-cot: JSON lines with demonstrations.
        demonstrations_from: few-shot-cot: producer of train rationales, instead.
        demonstration_ids: few-shot-cot: train questions that are taken from there.
    """
    name = producer or by
    given = {
        "splits": splits != (),
        "samples": samples != 1,
        "temperature": temperature != 0,
        "top_p": top_p != 1,
        "captions": captions is not None,
        "run": run is not None,
        "features": features is not None,
        "epochs": epochs is not None,
        "max_steps": max_steps is not None,
        "url": url is not None,
        "limit": limit is not None,
        "keep": keep is not None,
        "demonstrations": demonstrations is not None,
        "demonstrations_from": demonstrations_from is not None,
        "demonstration_ids": demonstration_ids != (),
    }
    if useless := [key for key, is_given in given.items() if is_given and by not in _USERS[key]]:
        return fail(ValueError(f"{', '.join(useless)}: has no meaning for rationales by {by}"))
    try:
        if by == "gold":
            path = _gold(artifacts, name, prompt_format)
        elif by == "stage1":
            if run is None:
                return fail(ValueError("by stage1 needs run, the run folder of mmcot-train"))
            from mmcot_model.producers.stage1 import Stage1Config

            path = _stage1(
                Stage1Config(
                    artifacts=artifacts,
                    run=run,
                    producer=name,
                    splits=splits,
                    samples=samples,
                    temperature=temperature,
                    top_p=top_p,
                    seed=seed,
                    batch_size=batch_size or 64,
                    features=_places(features),
                )
            )
        elif by == "stage1-kfold":
            from mmcot_model.producers.kfold import KFoldConfig
            from mmcot_model.settings.config import TrainConfig
            from mmcot_model.settings.recipes import recipe_of

            recipe = recipe_of(model)
            train = TrainConfig(
                artifacts=artifacts,
                output=runs / name,
                features=_places(features),
                stage="rationale",
                prompt_format=prompt_format,
                model=model,
                captions=captions,
                test_split="train",
                rationale_epochs=epochs or recipe.rationale_epochs,
                batch_size=batch_size or recipe.batch_size,
                learning_rate=recipe.learning_rate,
                warmup=recipe.warmup,
                length_window=recipe.length_window,
                max_steps=max_steps,
                seed=seed,
            )
            path = _stage1_kfold(KFoldConfig(train=train, folds=folds, producer=name))
        else:
            teacher: LocalConfig | EndpointConfig
            if url is None:
                teacher = LocalConfig(model=model, batch_size=batch_size or 8)
            else:
                teacher = EndpointConfig(model=model, url=url)
            path = _teacher(
                TeacherConfig(
                    artifacts=artifacts,
                    teacher=teacher,
                    producer=name,
                    method=method,
                    splits=splits or ("train",),
                    limit=limit,
                    samples=samples,
                    temperature=temperature,
                    top_p=top_p,
                    max_new_tokens=max_new_tokens,
                    seed=seed,
                    captions=captions,
                    keep=keep,
                    demonstrations=demonstrations,
                    demonstrations_from=demonstrations_from,
                    demonstration_ids=demonstration_ids,
                )
            )
        num_rows = publish_rationales(artifacts, by, name, path)
    except (ValueError, MmcotError, OSError) as error:
        return fail(error)
    text = f"{path}: {count_text(num_rows)} rationales"
    get_run_logger().info("%s", text)
    get_run_logger().info("next: mmcot-train --features … %s", training_options(by, name))
    return Completed(message=text, data=path)


def _places(features: str | None) -> tuple[Path | str, ...]:
    if features is None:
        return ()
    return (features if is_remote(features) else Path(features),)
