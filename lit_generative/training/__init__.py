"""LightningCLI with recipes, its parser, budgets of minutes, and trainings that are no model's own."""
