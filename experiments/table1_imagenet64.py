"""Table 1: FID and IS on ImageNet 64×64 for p_uncond ∈ {0.1, 0.2, 0.5} and 14 values of w.

  python -m experiments.table1_imagenet64 --workdir /shared/runs/imagenet64 --dry_run
    [--cluster slurm --slurm.partition=gpu --slurm.gpus_per_node=8 --slurm.nodes=4]

A sweep (see `cfg_jax.sweep`, whose flags it takes) over configs/imagenet64.py, which says its
cost first. The report has the table beside the paper's.
"""

from cfg_jax.papers import cfg
from cfg_jax.sweep import __main__ as sweep

if __name__ == '__main__':
  sweep.run_paper(cfg.PAPER, 'table1')
