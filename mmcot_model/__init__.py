"""Fusion T5: trains on questions and feature shards, opens no image."""
