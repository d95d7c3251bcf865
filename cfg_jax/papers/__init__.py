"""What each paper claims: its tables, its findings, its sweeps."""

from cfg_jax.papers import cfg
from cfg_jax.papers.paper import Column, Paper, Sweep

__all__ = ['DEFAULT', 'PAPERS', 'Column', 'Paper', 'Sweep']

PAPERS = {'cfg': cfg.PAPER}
DEFAULT = PAPERS['cfg']  # what a sweep repeats and a report is about, unless they are told
