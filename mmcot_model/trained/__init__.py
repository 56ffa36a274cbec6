"""Finished runs at work: one question with a look inside, and where errors come from."""
