"""Evaluates a run while it trains."""
