"""The HTML report of an evaluation or a training."""
