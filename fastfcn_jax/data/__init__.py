"""From files on disk to batches of uint8 pixels: NumPy, OpenCV and Grain; never jax."""
