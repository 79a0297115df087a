"""Media files: probing, decoding, sampling."""
