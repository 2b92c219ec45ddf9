"""The run of a comparison: entries, training to a budget, measuring, its cache and state."""
