"""Questions, images, encoders and feature shards of mmcot; knows neither training nor Prefect."""

__version__ = "0.1.0"
