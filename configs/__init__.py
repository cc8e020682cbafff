"""Experiments: each file overrides keys of the base configuration."""
