"""Scores of predictions: nine accuracy buckets, and BLEU and ROUGE of the rationales."""

from mmcot_model.evaluation.buckets import AnswerScores, BucketScore, score_answers
from mmcot_model.evaluation.failures import Failures, settled_answers
from mmcot_model.evaluation.predictions import Prediction, read_predictions, write_predictions
from mmcot_model.evaluation.rationale_scores import RationaleScores, score_rationales
from mmcot_model.evaluation.report import Scores, Similarity, evaluate
from mmcot_model.evaluation.tables import render_table

__all__ = [
    "AnswerScores",
    "BucketScore",
    "Failures",
    "Prediction",
    "RationaleScores",
    "Scores",
    "Similarity",
    "evaluate",
    "read_predictions",
    "render_table",
    "score_answers",
    "score_rationales",
    "settled_answers",
    "write_predictions",
]
