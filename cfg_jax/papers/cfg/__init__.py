"""Ho & Salimans, Classifier-Free Diffusion Guidance (2022)."""

from cfg_jax.papers.adm import tables as adm
from cfg_jax.papers.cfg import findings, sweeps, tables
from cfg_jax.papers.paper import Paper
from cfg_jax.report.study import Study

NO_BREAK = '\u00a0'

STUDY = Study(
  axis='sample.guidance.w',
  scale='symlog',
  title=lambda datasets: f'Classifier-free guidance on {", ".join(datasets)}',
  about='w is the guidance strength of Ho & Salimans (2022), '
  f'{"ε̃ = (1+w) ε(z, c) − w ε(z)".replace(" ", NO_BREAK)}; '
  'w = 0 is no guidance. The sampler “ddpm on paper grid” is its Algorithm 2.',
  findings=findings.findings,
  method=findings.METHOD,
  beside=lambda *of: tables.published(*of) + adm.published(*of),
)

PAPER = Paper(STUDY, sweeps.GRID, sweeps.SWEEPS, sweeps.columns)
