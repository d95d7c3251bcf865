"""Figure 2: the exact ε and p̃ by their definitions, what the caption claims, and the command."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from cfg_jax.equations.conditioning import Cond
from experiments import figure2_gaussians as figure2


def draw(w, n, num_steps=figure2.NUM_STEPS):
  """n samples, and their classes."""
  c = np.arange(n) % 3
  keys = jax.random.split(jax.random.key(1), n)
  return np.asarray(figure2.draw(keys, c, np.full(n, w, np.float32), num_steps)), c


def even_grid(half_width=9.0, points=181):
  axis = np.linspace(-half_width, half_width, points)
  return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def exact_radial(w):
  grid = even_grid()
  x, c = np.tile(grid, (3, 1)), np.repeat(np.arange(3), len(grid))
  return figure2.radial(x, c, figure2.tilted_densities(grid, w).ravel())


@pytest.mark.parametrize('lam', [-20.0, -4.0, 0.0, 3.0, 20.0])
@pytest.mark.parametrize('c', [0, 1, 2, None])
def test_exact_eps_is_the_score(lam, c):
  """ε = −σ ∇ log q(z_λ|c), by central differences of the log density in float64."""
  z = np.random.default_rng(0).normal(size=(20, 2)) * 2
  sigma2 = 1 / (1 + np.exp(np.float64(lam)))
  means, variance = np.sqrt(1 - sigma2) * figure2.MEANS, (1 - sigma2) * figure2.STD**2 + sigma2
  classes = slice(None) if c is None else [c]

  def log_q(z):
    squares = np.sum((z[:, None] - means[classes]) ** 2, axis=-1)
    return np.logaddexp.reduce(-squares / (2 * variance), axis=1)

  steps = 1e-4 * np.eye(2)
  score = np.stack([(log_q(z + h) - log_q(z - h)) / 2e-4 for h in steps], axis=-1)
  cond = Cond(np.full(20, c or 0), np.full(20, c is not None))
  eps = figure2.exact_eps(np.float32(z), np.full(20, np.float32(lam)), cond)
  np.testing.assert_allclose(eps, -np.sqrt(sigma2) * score, rtol=1e-5, atol=1e-5)


class TestTiltedDensities:
  def test_definition(self):
    """p̃(x|c) ∝ p(x|c) p(c|x)^w, from the densities themselves."""
    grid, w = even_grid(points=61), 1.7
    p = np.exp(-np.sum((grid - figure2.MEANS[:, None]) ** 2, axis=-1) / (2 * figure2.STD**2))
    tilted = p * (p / p.sum(axis=0)) ** w
    np.testing.assert_allclose(
      figure2.tilted_densities(grid, w), tilted / tilted.sum(axis=1, keepdims=True), rtol=1e-9
    )

  def test_w_0_is_the_data(self):
    grid = even_grid()
    for density, mean in zip(figure2.tilted_densities(grid, 0), figure2.MEANS):
      np.testing.assert_allclose(density @ grid, mean, atol=1e-6)
      covariance = (grid - mean).T @ (density[:, None] * (grid - mean))
      np.testing.assert_allclose(covariance, figure2.STD**2 * np.eye(2), atol=1e-6)

  def test_large_w_stays_finite(self):
    densities = figure2.tilted_densities(even_grid(), 1e4)
    np.testing.assert_allclose(densities.sum(axis=1), 1)


class TestCaption:
  """Each sentence of it that states a measurement."""

  def test_rows_agree_at_w_0(self):
    n = 3000
    mean, std = figure2.radial(*draw(0, n), np.ones(n))
    assert mean == pytest.approx(exact_radial(0)[0], abs=5 * std / np.sqrt(n))
    assert std == pytest.approx(exact_radial(0)[1], rel=5 / np.sqrt(2 * n) + 0.005)

  def test_guided_samples_land_farther_out_whatever_the_steps(self):
    n = 3000
    exact = exact_radial(4)[0]
    few, many = (figure2.radial(*draw(4, n, T), np.ones(n)) for T in (256, 1024))
    error = 5 * few[1] * np.sqrt(2 / n)
    assert many[0] == pytest.approx(few[0], abs=error)
    assert min(few[0], many[0]) > exact + 0.4 > exact + 3 * error


@pytest.mark.slow
def test_command_writes_the_figure(tmp_path):
  out = tmp_path / 'figure2.png'
  argv = [sys.executable, '-m', 'experiments.figure2_gaussians', '--out']
  done = subprocess.run([*argv, out], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout == f'{out}\n'
  with Image.open(out) as image:
    assert image.format == 'PNG' and min(image.size) > 500
    assert len(image.convert('RGB').getcolors(2**24)) > 1000


def test_bad_out_is_one_line(tmp_path):
  out = tmp_path / 'no' / 'figure2.png'
  argv = [sys.executable, '-m', 'experiments.figure2_gaussians', '--out', out]
  done = subprocess.run(argv, capture_output=True, text=True)
  assert done.returncode == 2
  assert done.stderr == f'--out={out} must be in a folder that exists.\n'
