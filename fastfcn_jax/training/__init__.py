"""Loss, optimiser, the pure training step, and the loop around it."""
