"""Table 2: FID and IS on ImageNet 128×128 for T ∈ {128, 256, 1024} and 14 values of w, one model.

  python -m experiments.table2_imagenet128_steps --workdir /shared/runs/imagenet128 --dry_run
    [--cluster slurm --slurm.partition=gpu --slurm.gpus_per_node=8 --slurm.nodes=4]

A sweep (see `cfg_jax.sweep`, whose flags it takes) over configs/imagenet128.py, which says its
cost first. The report has the table beside the paper's.
"""

from cfg_jax.papers import cfg
from cfg_jax.sweep import __main__ as sweep

if __name__ == '__main__':
  sweep.run_paper(cfg.PAPER, 'table2')
