"""Models for a grid of configs, sampled and evaluated, here or on Slurm."""
