"""The papers, as pure functions of λ. They import JAX alone."""
