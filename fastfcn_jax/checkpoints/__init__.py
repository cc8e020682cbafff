"""Checkpoint folders: the model in one, and how its arrays are stored."""
