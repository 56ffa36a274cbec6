"""From pictures to feature shards: scan, plan, make shards, finish; knows no orchestrator."""

from mmcot_data.extraction.config import ExtractionConfig
from mmcot_data.extraction.finish import ExtractionSummary, finish_extraction
from mmcot_data.extraction.making import begin_extraction, extract_shard
from mmcot_data.extraction.plan import ExtractionPlan
from mmcot_data.extraction.prepare import open_pictures, prepare_extraction, scan_source
from mmcot_data.extraction.run import Reports, extract_feature_sets, extract_features

__all__ = [
    "ExtractionConfig",
    "ExtractionPlan",
    "ExtractionSummary",
    "Reports",
    "begin_extraction",
    "extract_feature_sets",
    "extract_features",
    "extract_shard",
    "finish_extraction",
    "open_pictures",
    "prepare_extraction",
    "scan_source",
]
