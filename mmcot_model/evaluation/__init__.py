"""Scores of predictions: nine accuracy buckets, and BLEU and ROUGE of the rationales."""

from mmcot_model.evaluation.buckets import AnswerScores, BucketScore, score_answers
from mmcot_model.evaluation.predictions import Prediction, read_predictions, write_predictions
from mmcot_model.evaluation.rationale_scores import RationaleScores, score_rationales
from mmcot_model.evaluation.report import Scores, evaluate, render_table

__all__ = [
    "AnswerScores",
    "BucketScore",
    "Prediction",
    "RationaleScores",
    "Scores",
    "evaluate",
    "read_predictions",
    "render_table",
    "score_answers",
    "score_rationales",
    "write_predictions",
]
