"""From a request to its teacher: what identifies it, and how it is opened when it is needed."""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from mmcot_data.teacher.base import Teacher
from mmcot_data.teacher.config import EndpointConfig, LocalConfig
from mmcot_data.teacher.model_files import ModelFiles, find_model_files

__all__ = ["TeacherInWaiting", "find_teacher"]


@dataclass
class TeacherInWaiting:
    """A teacher that is identified, and opened by its first use: a rerun needs none.

    Use as a context: its end closes the teacher.
    """

    config: LocalConfig | EndpointConfig
    settings: dict[str, Any]
    """What identifies it, such as JSON can hold."""
    files: ModelFiles | None
    """Of a local model."""
    _opened: Teacher | None = None

    @property
    def is_open(self) -> bool:
        """Whether it was needed."""
        return self._opened is not None

    def open(self) -> Teacher:
        """The teacher, ready to write.

        Raises:
            GenerationError: If a local model can't be loaded, or the key of a server is none.
        """
        if self._opened is None:
            self._opened = self._make()
        return self._opened

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._opened is not None:
            self._opened.close()

    def _make(self) -> Teacher:
        if isinstance(self.config, EndpointConfig):
            from mmcot_data.teacher.endpoint import EndpointTeacher

            return EndpointTeacher(self.config)
        from mmcot_data.teacher.local import LocalTeacher

        assert self.files is not None
        return LocalTeacher(self.config, self.files)


def find_teacher(config: LocalConfig | EndpointConfig) -> TeacherInWaiting:
    """Identify a teacher: a local model by its files, a served one by its name.

    Raises:
        GenerationError: If there is no such model.
        EncoderError: If there is no such device.
    """
    if isinstance(config, EndpointConfig):
        served: dict[str, Any] = {"kind": "endpoint", "model": config.model}
        if config.no_thinking:
            served["thinking"] = False
        return TeacherInWaiting(config, served, None)
    from mmcot_data.teacher.precision import resolve_precision

    files = find_model_files(config.model, config.revision)
    settings = {
        "kind": "local",
        "model": files.model_id,
        "revision": files.revision,
        "weights_sha256": files.weights_sha256(),
        "texts_sha256": files.texts_sha256(),
        "precision": resolve_precision(config),
        "chat": config.chat,
        "thinking": False,
    }
    return TeacherInWaiting(config, settings, files)
