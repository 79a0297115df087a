"""Public weights, converted to our parameters."""
