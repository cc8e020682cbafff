"""Inference protocols, scores and reports."""
