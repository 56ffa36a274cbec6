"""What the layouts of data sets are recognised by."""

import re
from typing import Final

__all__ = [
    "DATASET_DICT",
    "DATASET_STATE",
    "PARQUET_SUFFIXES",
    "PICTURE_SUFFIXES",
    "PROBLEMS",
    "QUESTIONS",
    "SEALED_RECORDS",
    "SHARD_RECORD",
    "TABLE_NAMES",
    "TABLE_SUFFIXES",
]

PROBLEMS: Final = "problems.json"
"""In a folder of ScienceQA's layout."""
DATASET_DICT: Final = "dataset_dict.json"
"""In a folder of splits that Hugging Face's library saved."""
DATASET_STATE: Final = "state.json"
"""In the folder of each dataset that it saved."""
TABLE_SUFFIXES: Final = (".csv", ".tsv", ".jsonl")
"""Of tables of questions; parquet files of questions are known by their columns."""
TABLE_NAMES: Final = tuple(f"questions{suffix}" for suffix in (*TABLE_SUFFIXES, ".parquet"))
"""Of a table of questions that is found in a folder."""
PARQUET_SUFFIXES: Final = (".parquet", ".pq")
PICTURE_SUFFIXES: Final = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    *(".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jp2", ".jxl"),
)
"""What is listed as a picture, in upper or lower case. Those of the last line can't be decoded:
they are listed so that they are counted as failures, not left out in silence."""
QUESTIONS: Final = "questions.parquet"
"""In an artifact root that holds a data set's questions."""
SEALED_RECORDS: Final = ("manifest.json", "plan.json")
"""In a finished and in an unfinished feature set."""
SHARD_RECORD: Final = re.compile(r"\d{5,}-of-\d{5,}\.(h5|arrow)\.json")
"""In a feature set, beside each of its shards."""
