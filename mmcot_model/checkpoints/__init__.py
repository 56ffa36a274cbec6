"""Checkpoints of Multimodal-CoT's released code, made into FusionT5."""
