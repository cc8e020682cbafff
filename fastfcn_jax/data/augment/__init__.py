"""Training augmentations: mmsegmentation's, the official code's, and mmseg's cropping first."""
