"""The comparison of trained models: what is measured, and the report of it."""
