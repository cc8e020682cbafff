"""Loss, optimiser, the pure step, and the loop around it."""
