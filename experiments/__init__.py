"""The experiments of the paper, each a short script over cfg_jax."""
