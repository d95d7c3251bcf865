"""samples → metrics."""
