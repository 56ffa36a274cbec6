"""What a training run is asked to do: its settings, in code, in words, and in files."""
