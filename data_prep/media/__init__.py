"""Probes, decodes, samples and writes media files."""
