"""Figure 5: IS over FID on ImageNet 128×128, a curve for each T, w = 0, 0.1, …, 4.

  python -m experiments.figure5_imagenet128 --workdir /shared/runs/imagenet128

Table 2's sweep at 41 values of w; in its work directory the model, and the samples of the table's
own w, are there already. Ends with figure5.png, the paper's values beside ours.
"""

from cfg_jax.papers import cfg
from cfg_jax.sweep import __main__ as sweep

if __name__ == '__main__':
  sweep.run_paper(cfg.PAPER, 'figure5')
