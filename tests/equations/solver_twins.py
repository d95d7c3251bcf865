"""The solvers as their papers write them, in float64, on noise that is given."""

import numpy as np

from tests.equations.test_samplers import exact_eps, sigmoid

# Every form of every solver.
FORMS = {
  'ddpm v=0': ('ddpm', {'v': 0.0}),
  'ddpm v=1': ('ddpm', {'v': 1.0}),
  'ddim': ('ddim', {}),
  'ddim η=0.5': ('ddim', {'eta': 0.5}),
  'heun': ('heun', {}),
  'heun, churn': ('heun', {'s_churn': 10.0}),
  '++1': ('dpmpp', {'order': 1}),
  '++2M': ('dpmpp', {}),
  '++2S': ('dpmpp', {'singlestep': True}),
  '++1 SDE': ('dpmpp', {'order': 1, 'sde': True}),
  '++2M SDE': ('dpmpp', {'sde': True}),
  '++2S SDE': ('dpmpp', {'sde': True, 'singlestep': True}),
}


class Twin:
  """The solvers as their papers write them, in float64: α, σ, and ℓ = log α/σ or ς = σ/α."""

  def __init__(self, c, w, lam, noise, clip, changes):
    self.c, self.w = c, np.float64(w)[:, None]
    self.lam, self.noise, self.clip, self.changes = lam, noise, clip, changes
    self.alpha, self.sigma = np.sqrt(sigmoid(lam)), np.sqrt(sigmoid(-lam))

  def predict(self, z, lam):
    eps = (1 + self.w) * exact_eps(z, lam, self.c) - self.w * exact_eps(z, lam, None)
    x = (z - np.sqrt(sigmoid(-lam)) * eps) / np.sqrt(sigmoid(lam))
    x = self.clip(x)
    return x, (z - np.sqrt(sigmoid(lam)) * x) / np.sqrt(sigmoid(-lam))

  def same(self, lam, other):
    """Whether predictions at these may be combined."""
    return self.changes is None or (lam > self.changes) == (other > self.changes)

  def run(self, form):
    sampler, own = FORMS[form]
    self.last = None
    z = self.noise[0]
    for t in range(len(self.lam) - 1):
      z = getattr(self, sampler)(z, t, **own)
    return self.predict(z, self.lam[-1])[0]

  def ends(self, t):
    return self.alpha[t], self.sigma[t], self.alpha[t + 1], self.sigma[t + 1]

  def ddpm(self, z, t, v):
    """Ho et al. 2020, equations 6 and 7, of a subset's β."""
    a, s, a2, s2 = self.ends(t)
    beta = 1 - a**2 / a2**2
    x, _ = self.predict(z, self.lam[t])
    mean = (a2 * beta * x + a / a2 * s2**2 * z) / s**2
    variance = beta if v else beta * s2**2 / s**2
    return mean + np.sqrt(variance) * self.noise[t + 1]

  def ddim(self, z, t, eta=0.0):
    """Song et al. 2021, equations 12 and 16."""
    a, s, a2, s2 = self.ends(t)
    tau = eta * np.sqrt(s2**2 / s**2) * np.sqrt(1 - a**2 / a2**2)
    x, eps = self.predict(z, self.lam[t])
    return a2 * x + np.sqrt(s2**2 - tau**2) * eps + tau * self.noise[t + 1]

  def heun(self, z, t, s_churn=0.0):
    """Karras et al. 2022, Algorithm 2, in z/α."""
    a, s, a2, s2 = self.ends(t)
    now, then = s / a, s2 / a2
    gamma = min(s_churn / len(self.lam), np.sqrt(2) - 1) if 0.05 <= now <= 50 else 0.0
    hat = now * (1 + gamma)
    y = z / a + np.sqrt(hat**2 - now**2) * 1.003 * self.noise[t + 1]

    def denoise(y, varsigma):
      lam = -2 * np.log(varsigma)
      return self.predict(y * np.sqrt(sigmoid(lam)), lam)[0]

    d = (y - denoise(y, hat)) / hat
    y2 = y + (then - hat) * d
    d2 = (y2 - denoise(y2, then)) / then
    if hat <= 4 * then and self.same(-2 * np.log(hat), self.lam[t + 1]):
      y2 = y + (then - hat) * (d + d2) / 2
    return a2 * y2

  def dpmpp(self, z, t, order=2, singlestep=False, sde=False):
    """Lu et al. 2022: Algorithm 1 with r = ½, Algorithm 2, and the SDE forms of its appendix."""
    ell = self.lam / 2
    h = ell[t + 1] - ell[t]
    x, _ = self.predict(z, self.lam[t])
    middle = self.lam[t] + h
    if order == 2 and singlestep:
      u = self.first(z, x, self.lam[t], middle, sde)
      brown = self.spread(self.lam[t], middle) * self.noise[t + 1] * sde
      x, _ = self.predict(u + brown, middle)
      brown = self.first(brown, 0, middle, self.lam[t + 1], sde)
      brown += self.spread(middle, self.lam[t + 1]) * self.noise[len(self.lam) + t + 1] * sde
      return self.first(z, x, self.lam[t], self.lam[t + 1], sde) + brown
    step, last = x, self.last
    if order == 2 and t and self.same(self.lam[t - 1], self.lam[t]):
      r = (ell[t] - ell[t - 1]) / h
      step = (1 + 1 / (2 * r)) * x - 1 / (2 * r) * last if r >= 0.5 else x
    self.last = x
    z = self.first(z, step, self.lam[t], self.lam[t + 1], sde)
    return z + self.spread(self.lam[t], self.lam[t + 1]) * self.noise[t + 1] * sde

  @staticmethod
  def first(z, x, lam, lam2, sde):
    h = (lam2 - lam) / 2
    a2, s, s2 = np.sqrt(sigmoid(lam2)), np.sqrt(sigmoid(-lam)), np.sqrt(sigmoid(-lam2))
    if sde:
      return s2 / s * np.exp(-h) * z + a2 * (1 - np.exp(-2 * h)) * x
    return s2 / s * z - a2 * (np.exp(-h) - 1) * x

  @staticmethod
  def spread(lam, lam2):
    return np.sqrt(sigmoid(-lam2)) * np.sqrt(1 - np.exp(lam - lam2))
