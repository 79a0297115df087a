"""HTTP server of a bundle, with its web page."""
