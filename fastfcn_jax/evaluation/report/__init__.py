"""The HTML report of an evaluation or a training, and the comparison of several."""
