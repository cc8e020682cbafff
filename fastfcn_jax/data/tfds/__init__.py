"""Data sets prepared by TensorFlow Datasets into ArrayRecord files: written and read."""
