"""FastFCN in JAX: semantic segmentation with Joint Pyramid Upsampling (arXiv 1903.11816)."""

__version__ = "0.1.0"
