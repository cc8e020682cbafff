"""Labels for images of any size: test-time protocols, windows, tiles, upsampling."""
