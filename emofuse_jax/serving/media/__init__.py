"""Media files as model inputs; the only part of serving that imports `data_prep`."""
