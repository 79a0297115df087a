"""Serving bundles: file format, export and loading."""
