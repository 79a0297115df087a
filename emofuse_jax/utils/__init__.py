"""Helpers that do not depend on emotion recognition: errors, locks, files, validation of configs."""
