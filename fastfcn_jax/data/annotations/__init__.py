"""Outlines that annotation programs store, read from their files and drawn as index labels."""
