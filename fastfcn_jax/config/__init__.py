"""Configurations: the base with every key, loading, validation, and the page that lists keys."""
