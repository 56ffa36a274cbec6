"""The embedded sample: questions and pictures drawn by the project, in ScienceQA's format.

The question of an image skill leaves its answer open; only the picture tells it.
"""

from mmcot_data.sample.layout import MIN_QUESTIONS, SAMPLE_VERSION, draw_sample

__all__ = ["MIN_QUESTIONS", "SAMPLE_VERSION", "draw_sample"]
