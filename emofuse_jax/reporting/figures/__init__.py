"""Draws the figures of the reports with Matplotlib."""
