"""Worker processes with bounded memory and time."""
