"""Speed suites, measured side by side with other libraries; run from a clone, not installed."""
