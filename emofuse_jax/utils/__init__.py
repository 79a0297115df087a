"""Helpers without knowledge of emotion recognition: errors, locks, files."""
