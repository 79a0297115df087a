"""Synthesizes the clips of the demo corpus: faces, voices and video files."""
