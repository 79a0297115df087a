"""Encoders, one file per architecture: `audio_*` reads spectrograms, `video_*` face crops."""
