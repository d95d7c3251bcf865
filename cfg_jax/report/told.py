"""Numbers in words."""

import math


def told(value: float, error: float) -> str:
  """A number with its error, to the digits that the error leaves; four where there is none."""
  if not math.isfinite(value):
    return ''
  if not math.isfinite(error):
    return f'{value:.4g}'
  if error <= 1e-9 * abs(value):
    return f'{value:.4g} ± 0'
  digits = 1 - math.floor(math.log10(error))
  if digits > 6:
    return f'{value:.3g} ± {error:.2g}'
  digits = max(0, digits)
  return f'{value:.{digits}f} ± {error:.{digits}f}'
