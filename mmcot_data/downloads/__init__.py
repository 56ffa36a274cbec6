"""Fetch data sets: files that are whole and are what was published, whatever the network does."""
