"""Prefect flows and the commands that compose mmcot_data and mmcot_model."""
