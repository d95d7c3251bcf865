"""Classifier-Free Diffusion Guidance (Ho & Salimans, 2022) in JAX."""
