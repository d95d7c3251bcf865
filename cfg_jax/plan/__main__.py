"""What a config costs.

python -m cfg_jax.plan --config configs/imagenet64.py [--plan.device=h100 --plan.devices=8]
"""

from cfg_jax.core import command
from cfg_jax.plan import show


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  show.main(command.config_of_file())


if __name__ == '__main__':
  command.define_config_flags()
  show.define_flags()
  command.run(main)
