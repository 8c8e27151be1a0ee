"""Conditional latent diffusion for survey astronomy."""
