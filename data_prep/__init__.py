"""Offline preprocessing: reads media files and writes records."""
