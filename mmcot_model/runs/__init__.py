"""A run, from questions and feature shards to a folder with models, predictions and scores."""
