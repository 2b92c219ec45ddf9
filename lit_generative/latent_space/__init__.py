"""The latent space of one model, laid open in pictures and numbers."""
