"""LightningCLI with recipes, its parser, and trainings that are no model's own."""
