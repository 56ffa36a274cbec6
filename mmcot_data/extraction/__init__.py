"""From pictures to feature shards: plan, extract shard by shard, finish; knows no orchestrator."""

from mmcot_data.extraction.config import ExtractionConfig
from mmcot_data.extraction.finish import ExtractionSummary, finish_extraction
from mmcot_data.extraction.plan import ExtractionPlan, plan_extraction
from mmcot_data.extraction.run import extract_features
from mmcot_data.extraction.shard import extract_shard
from mmcot_data.tables import write_tables

__all__ = [
    "ExtractionConfig",
    "ExtractionPlan",
    "ExtractionSummary",
    "extract_features",
    "extract_shard",
    "finish_extraction",
    "plan_extraction",
    "write_tables",
]
