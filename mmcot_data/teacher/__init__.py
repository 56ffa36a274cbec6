"""Rationales by a language model, the teacher: local, or behind an OpenAI-compatible endpoint."""

from mmcot_data.teacher.config import (
    METHODS,
    ClusterConfig,
    EndpointConfig,
    LocalConfig,
    Method,
    TeacherConfig,
)
from mmcot_data.teacher.run import Reports, generate_teacher_rationales
from mmcot_data.teacher.summary import RationaleSummary

__all__ = [
    "METHODS",
    "ClusterConfig",
    "EndpointConfig",
    "LocalConfig",
    "Method",
    "RationaleSummary",
    "Reports",
    "TeacherConfig",
    "generate_teacher_rationales",
]
