"""Weights of both PyTorch lineages, read and written without PyTorch."""
