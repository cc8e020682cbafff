"""Measures where the time of a model goes on this device."""
