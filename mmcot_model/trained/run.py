"""What a finished run can be asked, known without loading it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmcot_data.errors import TrainingError
from mmcot_data.files import file_sha256
from mmcot_data.shards import FeatureSpec
from mmcot_model.feature_layout import FeatureLayout
from mmcot_model.features import RunFeatures, open_run_features
from mmcot_model.runs.folder import read_config, read_run
from mmcot_model.settings.config import TrainConfig

__all__ = ["TrainedRun", "read_trained_run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedRun:
    """A finished run: its stages, and what made the features that they read."""

    folder: Path
    config: TrainConfig
    artifacts: Path
    """The artifact root that it was made from."""
    features: tuple[str, ...]
    """Where its feature sets were."""
    specs: tuple[FeatureSpec, ...]
    """What made them; none for a run on the text alone."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Digests of what it was made from."""

    @property
    def layout(self) -> FeatureLayout | None:
        """The form of its features; None for a run on the text alone."""
        if not self.specs:
            return None
        return FeatureLayout(
            encoders=tuple(spec.encoder for spec in self.specs),
            num_patches=sum(spec.num_patches for spec in self.specs),
            patch_dim=sum(spec.feature_dim for spec in self.specs),
        )

    @property
    def stages(self) -> tuple[str, ...]:
        """``rationale``, ``answer``, or both in this order."""
        stages = {"both": ("rationale", "answer")}
        return stages.get(self.config.stage, (self.config.stage,))

    def model(self, stage: str) -> str:
        """Folder or hub id of a stage's model."""
        config = self.config
        given = config.rationale_model if stage == "rationale" else config.answer_model
        return given if given is not None else str(self.folder / stage)

    def check_model(self, stage: str) -> None:
        """See that a stage that was given to the run has the weights that were tested.

        A model of the hub is known by its name alone.

        Raises:
            TrainingError: If its weights are others now, or are not there.
        """
        name = f"{stage}_model"
        given = getattr(self.config, name)
        if given is None:
            return
        prefix = f"{name} "
        expected = {
            key.removeprefix(prefix): digest
            for key, digest in self.sha256.items()
            if key.startswith(prefix)
        }
        folder = Path(given)
        files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
        found = {path.name: file_sha256(path) for path in files}
        if found != expected:
            raise TrainingError(
                f"the {stage} stage of {self.folder}, {given}, is not what the run was tested "
                f"with: expected weights with the sha256 {_listed(expected)}, found "
                f"{_listed(found)}; put the tested model back, or test this one in a run of its "
                f"own (mmcot-train --{stage}-model)"
            )

    def open_features(self, places: Sequence[Path | str] = ()) -> RunFeatures | None:
        """Open the feature sets that it reads; None for a run on the text alone.

        Args:
            places: Where they are now; none takes the places where the run had them.

        Raises:
            ShardError: If a set cannot be read, or holds other features than those of the run.
            TrainingError: If there are more or fewer sets than the run's.
        """
        return open_run_features(
            places or self.features,
            self.config.image_roles,
            expect=[spec.to_json() for spec in self.specs],
        )

    def check_question(
        self, *, has_picture: bool, caption: str | None, rationale: str | None
    ) -> list[str]:
        """Refuse what the run can't read, and tell what it lacks.

        Args:
            has_picture: Whether there is a picture.
            caption: A text for the picture.
            rationale: A rationale to answer from.

        Returns:
            What the model was trained with and is not given, as sentences.

        Raises:
            TrainingError: If the run reads no pictures, captions or rationales and one is given,
                or it needs a rationale and none is given.
        """
        config = self.config
        if has_picture and not self.specs:
            raise TrainingError(
                f"{self.folder} was trained on the text alone and reads no pictures: leave out the "
                "picture, or name a run that was trained with --features"
            )
        if caption is not None and config.captions is None:
            raise TrainingError(
                f"{self.folder} was trained without captions: what the model should know of the "
                "picture can stand in --hint"
            )
        if rationale is not None and not config.reads_rationales:
            raise TrainingError(
                f"no stage of {self.folder} reads a rationale ({config.prompt_format}): leave out "
                "--rationale"
            )
        if rationale is None and self.stages == ("answer",) and config.reads_rationales:
            raise TrainingError(
                f"{self.folder} answers from a rationale and has no stage that writes one: give "
                "--rationale TEXT, such as one of mmcot-predict with a run that writes them"
            )
        notes = []
        if self.specs and not has_picture:
            notes.append("no picture: the model answers as it does to questions that have none")
        if config.captions is not None and caption is None:
            notes.append(
                f"no caption: the run was trained with captions of {config.captions!r} in the "
                "context, and this context has none"
            )
        return notes


def read_trained_run(folder: Path) -> TrainedRun:
    """Read what a finished run says of itself.

    Raises:
        TrainingError: If the folder holds no finished run, or what it says is damaged.
        ShardError: If a spec in it is damaged.
    """
    config, run = read_config(folder), read_run(folder)
    places, specs = (_list(folder, run, name) for name in ("features", "feature_specs"))
    sha256 = run.get("sha256", {})
    if not isinstance(sha256, dict):
        raise TrainingError(
            f"{folder / 'run.json'}: 'sha256' is {sha256!r:.60}, expected an object with digests"
        )
    return TrainedRun(
        folder=folder,
        config=config,
        artifacts=folder / run["artifacts"],
        features=tuple(map(str, places)),
        specs=tuple(FeatureSpec.from_json(spec, f"{folder / 'run.json'}") for spec in specs),
        sha256=sha256,
    )


def _list(folder: Path, run: dict[str, object], name: str) -> Sequence[object]:
    value = run.get(name)
    if not isinstance(value, list):
        raise TrainingError(
            f"{folder / 'run.json'}: {name!r} is {value!r:.60}, expected a list: the run was made "
            "by another version of mmcot; train it anew"
        )
    return value


def _listed(digests: Mapping[str, str]) -> str:
    return ", ".join(f"{digest} ({name})" for name, digest in digests.items()) or "none"
