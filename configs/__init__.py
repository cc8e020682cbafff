"""Experiments: one file each, assigning its differences from the base configuration."""
