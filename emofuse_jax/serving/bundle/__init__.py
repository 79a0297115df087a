"""Serving bundles: format, export and loading."""
