"""Figures of the reports, drawn with Matplotlib."""
