"""Dhariwal & Nichol, Diffusion Models Beat GANs on Image Synthesis (2021)."""
