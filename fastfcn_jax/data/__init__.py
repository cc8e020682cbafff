"""Images and labels: sources, augmentation, batches. Never imports jax or the models."""
