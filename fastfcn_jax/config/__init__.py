"""Configurations: the base with every key, loading, checking, and the page that lists them."""
