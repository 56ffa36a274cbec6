"""Rationales by trained models, as artifacts that other runs read."""
