"""Writing and reading data sets in TFDS' ArrayRecord format."""
