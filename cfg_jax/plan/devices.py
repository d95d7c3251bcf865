"""Accelerators' published peak rates, from devices.csv, each with its source.

Rates are dense: where the source tells them with sparsity, half of that. A device is what JAX calls
one, so a TPU v3 is half a chip. `float32_tflops` is the rate of float32 arrays at JAX's default
precision, which is not float32 on most: `float32_is` says what. A V100 has no bfloat16.
"""

import csv
from importlib import resources
from typing import NamedTuple

from cfg_jax.core.errors import UserError


class Device(NamedTuple):
  """One line of the file. GB and TFLOP/s are powers of ten; None where the device can't."""

  device: str  # its name in commands
  name: str
  jax_kind: str  # jax.Device.device_kind
  memory_gb: float
  bandwidth_gb_s: float
  bfloat16_tflops: float | None
  float32_tflops: float
  float32_is: str
  source: str

  def peak_flops(self, dtype: str) -> float:
    """FLOP/s on 'bfloat16' or 'float32' arrays; ValueError where the device has no such units."""
    tflops = {'bfloat16': self.bfloat16_tflops, 'float32': self.float32_tflops}[dtype]
    if tflops is None:
      raise UserError(f'{self.name} has no {dtype}: use --set model.dtype=float32.')
    return tflops * 1e12


def _read() -> dict[str, Device]:
  with (resources.files('cfg_jax.plan') / 'devices.csv').open(encoding='utf-8', newline='') as f:
    rows = [
      row | {k: float(v) if v else None for k, v in row.items() if k.endswith(('_gb', '_s', 'ops'))}
      for row in csv.DictReader(f)
    ]
  return {row['device']: Device(**row) for row in rows}


DEVICES: dict[str, Device] = _read()


def of_kind(device_kind: str) -> Device | None:
  """The device that jax.Device.device_kind names, None for one that is not in the file."""
  return next((d for d in DEVICES.values() if d.jax_kind == device_kind), None)
