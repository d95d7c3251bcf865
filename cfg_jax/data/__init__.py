"""Data sets: what they are called, how they are opened, and batches of them."""
