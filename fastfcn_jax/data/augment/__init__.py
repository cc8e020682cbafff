"""Training augmentations: mmsegmentation's, the official code's, and the crop-first order."""
