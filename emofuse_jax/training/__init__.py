"""Training: the loop, its step, optimizer and state."""
