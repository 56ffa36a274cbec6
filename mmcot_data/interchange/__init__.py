"""Feature sets from other programs' files and back, bit by bit.

Multimodal-CoT's ``.npy`` and ``.pth`` with ``name_map.json``, HDF5 with a group for each picture
(VL-T5), Hugging Face datasets, and the two containers of a feature set into each other. Nothing is
unpickled but tensors, by PyTorch's restricted reader. Only ``.pth`` needs PyTorch, and only Hugging
Face datasets need ``datasets``.

An import gives each row of a file to the questions that an explicit map names; an export chooses
one picture for each question, and reads it through its checksum.
"""

from mmcot_data.interchange.array_export import ArrayExport, export_array
from mmcot_data.interchange.array_import import open_array_file
from mmcot_data.interchange.conversion import convert_feature_set
from mmcot_data.interchange.feature_file import FeatureFile
from mmcot_data.interchange.group_export import GroupExport, export_group_file
from mmcot_data.interchange.group_import import open_group_file
from mmcot_data.interchange.hf_dataset import export_hf_dataset, open_hf_dataset
from mmcot_data.interchange.importing import Claims, ImportSummary, import_features

__all__ = [
    "ArrayExport",
    "Claims",
    "FeatureFile",
    "GroupExport",
    "ImportSummary",
    "convert_feature_set",
    "export_array",
    "export_group_file",
    "export_hf_dataset",
    "import_features",
    "open_array_file",
    "open_group_file",
    "open_hf_dataset",
]
