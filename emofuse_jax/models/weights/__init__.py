"""Public weights as our parameters: one file a family of networks."""
