"""config → checkpoints."""
