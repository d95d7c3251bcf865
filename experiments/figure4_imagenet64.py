"""Figure 4: IS over FID on ImageNet 64×64, a curve for each p_uncond, w = 0, 0.1, …, 4.

  python -m experiments.figure4_imagenet64 --workdir /shared/runs/imagenet64

Table 1's sweep at 41 values of w; in its work directory the models, and the samples of the table's
own w, are there already. Ends with figure4.png, the paper's values beside ours.
"""

from cfg_jax.papers import cfg
from cfg_jax.sweep import __main__ as sweep

if __name__ == '__main__':
  sweep.run_paper(cfg.PAPER, 'figure4')
