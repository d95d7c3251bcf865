"""Figure 4: IS over FID on ImageNet 64×64, a curve for each p_uncond, w = 0, 0.1, …, 4.

  python -m experiments.figure4_imagenet64 --workdir /shared/runs/imagenet64

Table 1's sweep at 41 values of w; in its work directory the models, and the samples of the table's
own w, are there already. Ends with figure4.png, the paper's values beside ours.
"""

from cfg_jax import cli, figures
from experiments import sweep


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  workdir = sweep.sweep(shows_cost=True)
  figures.write_frontier(workdir, workdir / 'figure4.png')


if __name__ == '__main__':
  sweep.define_flags('imagenet64', ['train.p_uncond=0.1,0.2,0.5', sweep.EVERY_W])
  cli.run(main)
