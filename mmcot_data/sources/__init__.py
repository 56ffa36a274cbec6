"""Where pictures come from: ScienceQA's layout, folders of pictures, and tables of them."""

from mmcot_data.sources.base import ImageSource, SourceImage, StoredImage
from mmcot_data.sources.layouts import LAYOUTS, Layout, open_source, open_stored

__all__ = [
    "LAYOUTS",
    "ImageSource",
    "Layout",
    "SourceImage",
    "StoredImage",
    "open_source",
    "open_stored",
]
