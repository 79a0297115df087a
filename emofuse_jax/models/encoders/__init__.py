"""Encoders, one file per architecture: `audio_*` for spectrograms, `video_*` for face crops."""
