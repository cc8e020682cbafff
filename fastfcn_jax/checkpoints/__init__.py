"""Checkpoint folders: the model and how its arrays are stored."""
