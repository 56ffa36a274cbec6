"""From pictures to feature shards: scan, plan, make shards, finish; knows no orchestrator."""

from mmcot_data.extraction.config import ExtractionConfig
from mmcot_data.extraction.finish import ExtractionSummary, finish_extraction
from mmcot_data.extraction.making import begin_extraction
from mmcot_data.extraction.one_shard import extract_shard, load_planned_encoder, wait_for_others
from mmcot_data.extraction.plan import ExtractionPlan
from mmcot_data.extraction.prepare import open_pictures, prepare_extraction, scan_source
from mmcot_data.extraction.run import Reports, extract_feature_sets, extract_features
from mmcot_data.extraction.shard_task import ShardTask

__all__ = [
    "ExtractionConfig",
    "ExtractionPlan",
    "ExtractionSummary",
    "Reports",
    "ShardTask",
    "begin_extraction",
    "extract_feature_sets",
    "extract_features",
    "extract_shard",
    "finish_extraction",
    "load_planned_encoder",
    "open_pictures",
    "prepare_extraction",
    "scan_source",
    "wait_for_others",
]
