"""Class indices of images of any size: test protocols, windows, tiles, upsampling."""
