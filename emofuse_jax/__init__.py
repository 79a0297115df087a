"""emofuse: audio-visual emotion recognition in JAX/Flax."""
