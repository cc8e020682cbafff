"""Predictions for photographs and videos, written as files."""
