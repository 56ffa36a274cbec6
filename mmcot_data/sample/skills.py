"""All skills of the sample, and how many questions each gets."""

from typing import Any

from mmcot_data.sample.animals import ANIMALS
from mmcot_data.sample.charts import CHARTS
from mmcot_data.sample.concentration import CONCENTRATION
from mmcot_data.sample.magnets import MAGNETS
from mmcot_data.sample.maps import MAPS
from mmcot_data.sample.nouns import NOUNS
from mmcot_data.sample.skill import ImageSkill, TextSkill
from mmcot_data.sample.states import STATES
from mmcot_data.sample.thermometer import THERMOMETER

__all__ = ["IMAGE_SKILLS", "SHARES", "SKILLS", "TEXT_SKILLS"]

IMAGE_SKILLS: dict[str, ImageSkill[Any]] = {
    "magnets": MAGNETS,
    "maps": MAPS,
    "concentration": CONCENTRATION,
    "charts": CHARTS,
    "thermometer": THERMOMETER,
}
TEXT_SKILLS: dict[str, TextSkill] = {"nouns": NOUNS, "states": STATES, "animals": ANIMALS}
SKILLS: dict[str, ImageSkill[Any] | TextSkill] = {**IMAGE_SKILLS, **TEXT_SKILLS}

SHARES: dict[str, float] = {
    "magnets": 0.08,
    "maps": 0.2,
    "concentration": 0.2,
    "charts": 0.2,
    "thermometer": 0.08,
    "nouns": 0.08,
    "states": 0.08,
    "animals": 0.08,
}
"""Share of all questions; more for what takes more examples to learn."""
