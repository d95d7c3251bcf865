"""Fréchet distance, Inception Score and their kin, from features that stream out of JAX."""
