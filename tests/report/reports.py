"""Runs as `report` reads them, and its page as a reader sees it."""

import json
from html.parser import HTMLParser

import numpy as np
from sklearn.datasets import load_digits

from cfg_jax import papers
from cfg_jax.report import page as report

STUDY = papers.DEFAULT.study
W = (0.0, 0.1, 0.3, 0.5, 1.0, 2.0, 4.0)


def write_run(
  workdir,
  run,
  p_uncond,
  *,
  ws=W,
  num_steps=32,
  v=0.3,
  n=100,
  dataset='digits',
  metrics=None,
  distance='FD-digits',
  images=None,
  sampler=None,
  seed=0,
  sample_seed=0,
  error=None,
  extra=None,
):
  """A run as `evaluate` and `generate` leave it: plausible numbers, digits that sharpen with w.

  sampler: the config's section, but for num_steps; error: of the distance, as a share, recorded
  with deviations. extra: what a line has beside or instead.
  """
  folder = workdir / run
  folder.mkdir(parents=True, exist_ok=True)
  config = {'method': {'p_uncond': p_uncond}, 'seed': seed, 'versions': {'jax': '0.10.2'}}
  (folder / 'config.json').write_text(json.dumps(config))
  if images is None:
    digits = load_digits()
    order = np.concatenate(
      [np.flatnonzero(digits.target == i % 10)[i // 10, None] for i in range(n)]
    )
    images = digits.images[order][..., None] / 16
  noise = np.random.default_rng(0).normal(size=images.shape)
  lines = []
  for w in ws:
    sampler = sampler or {'name': 'ddpm', 'grid': 'paper', 'v': v}
    group = f'step=1500,ema,{sampler["name"]},T={num_steps}'
    group += f',seed={sample_seed}' if sample_seed else ''
    samples = f'samples/{group}/w={w:g}'
    out = folder / samples
    out.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(images + noise * 0.3 / (1 + 2 * w), 0, 1)
    for part in np.array_split(np.arange(n), 2):
      np.savez(
        out / f'{part[0]:08d}-{part[-1] + 1:08d}.npz',
        images=np.round(pixels[part] * 255).astype(np.uint8),
        labels=(part % 10).astype(np.int32),
        indices=part.astype(np.int64),
      )
    fd = 12 + 4 * p_uncond + 30 * (w - 0.5) ** 2 / (1 + w)
    scores = {distance: fd, 'IS': 10 - (0.5 + p_uncond) * np.exp(-2 * w), 'IS_std': 0.01}
    section = sampler | {'num_steps': num_steps, 'clip_x': True}
    guidance = {'pair': 'null', 'rule': 'classifier_free', 'w': w}
    cell = {
      **{'version': 2, 'run': run, 'dataset': dataset, 'seed': seed, 'step': 1500},
      'settings': {
        'method': {'name': 'classifier_free', 'p_uncond': p_uncond},
        'sample': {
          **{'sampler': section, 'guidance': guidance},
          **{'labels': 'balanced', 'ema': True, 'seed': sample_seed},
        },
      },
      **{'samples': samples, 'n': n, 'extractor': 'digits', 'extractor_sha256': 'ab' * 32},
      **{'reference': 'digits-train', 'reference_n': 1797, 'reference_sha256': 'cd' * 32},
      'distance': distance,
      **(extra or {}),
      'metrics': metrics if metrics is not None else scores | {'accuracy': 1 - 0.05 * np.exp(-w)},
    }
    if error:
      cell |= errors_of(cell['metrics'], distance, error, w, sample_seed)
    lines.append(json.dumps(cell))
  with (folder / 'evals.jsonl').open('a') as f:
    f.write('\n'.join(lines) + '\n')
  return folder


def errors_of(metrics, distance, share, w, seed=0):
  """Errors and deviations as `evaluate` records them; those of neighbouring w are much alike."""
  alike = np.random.RandomState(seed).normal(size=(2, 100))
  own = np.random.RandomState(int(10 * w) + 1).normal(size=(2, 100))
  noise = 0.98 * alike + 0.2 * own
  errors = {k: share * abs(v) for k, v in metrics.items() if not k.endswith('_std')}
  errors['IS'] = 0.01
  deviations = {distance: errors[distance] * noise[0], 'IS': errors['IS'] * noise[1]}
  return {'errors': errors, 'deviations': {k: v.tolist() for k, v in deviations.items()}}


class Page(HTMLParser):
  """Tags with their attributes, and all text, of a report."""

  def __init__(self, workdir):
    super().__init__()
    self.tags, self.text, self.data, self.inside = [], '', None, None
    self.html = (workdir / 'report.html').read_text(encoding='utf-8')
    self.feed(self.html)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    self.inside = dict(attrs).get('id', 'code') if tag in ('script', 'style') else None

  def handle_endtag(self, tag):
    self.inside = None

  def handle_data(self, data):
    if self.inside == 'data':
      self.data = json.loads(data)
    elif self.inside is None:
      self.text += data.replace('\u00a0', ' ')

  def all(self, tag):
    return [attrs for t, attrs in self.tags if t == tag]


def report_on(workdir):
  report.write_report(workdir, STUDY)
  return Page(workdir)
