"""The reference implementations, called in one way: torch-fidelity, pytorch-fid, prdc.

Importing this module needs the extra `[parity]`.
"""

import contextlib
import io
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch

torch.set_num_threads(2)
# torchvision beside a build of PyTorch that it wasn't made for lacks its operators. The originals
# use Python classes of it only, but without these two names its import fails.
with contextlib.suppress(RuntimeError):
  _operators = torch.library.Library('torchvision', 'DEF')
  for _name in ('nms', 'qnms'):
    _operators.define(f'{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')

import prdc  # noqa: E402
import pytorch_fid.inception  # noqa: E402
from torch_fidelity import (  # noqa: E402
  feature_extractor_inceptionv3,
  metric_fid,
  metric_isc,
  metric_kid,
  metric_prc,
)
from torch_fidelity.interpolate_compat_tensorflow import (  # noqa: E402
  interpolate_bilinear_2d_like_tensorflow1x,
)


def torch_fidelity_inception(state: dict[str, np.ndarray] | None = None) -> torch.nn.Module:
  """torch-fidelity's extractor with these weights (PyTorch's random ones by default)."""
  net = feature_extractor_inceptionv3.FeatureExtractorInceptionV3
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / 'weights.pth'
    torch.save({k: torch.tensor(v) for k, v in (state or {}).items()}, path)
    patch = mock.patch.object(net, 'load_state_dict') if state is None else mock.MagicMock()
    with patch:
      return net('inception', ['2048', 'logits_unbiased', 'logits'], str(path))


def torch_fidelity_taps(state: dict[str, np.ndarray], images: np.ndarray) -> dict:
  """pool3, logits_unbiased, logits, and ADM's spatial features, of uint8 NHWC."""
  net = torch_fidelity_inception(state)
  spatial = []
  net.Mixed_6d.branch1x1.register_forward_hook(lambda *a: spatial.append(a[-1]))
  with torch.no_grad():
    pool3, logits_unbiased, logits = net(torch.tensor(images).permute(0, 3, 1, 2))
  first = spatial[0][:, :7].permute(0, 2, 3, 1).reshape(len(images), -1)
  taps = {'pool3': pool3, 'logits_unbiased': logits_unbiased, 'logits': logits, 'spatial': first}
  return {k: v.numpy() for k, v in taps.items()}


def pytorch_fid_pool3(state: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
  """pytorch-fid's features of uint8 NHWC: half-pixel resize, 2x − 1."""
  tensors = {k: torch.tensor(v) for k, v in state.items()}
  with mock.patch.object(
    pytorch_fid.inception, 'load_state_dict_from_url', lambda *_, **__: tensors
  ):
    net = pytorch_fid.inception.InceptionV3().eval()
  with torch.no_grad():
    return net(torch.tensor(images).permute(0, 3, 1, 2) / 255)[0][:, :, 0, 0].numpy()


def resize(images: np.ndarray, how: str) -> np.ndarray:
  """float32 NHWC to 299 × 299, as torch-fidelity ('tf1') or pytorch-fid ('half_pixel') does."""
  x = torch.tensor(images).permute(0, 3, 1, 2)
  if how == 'tf1':
    y = interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
  else:
    y = torch.nn.functional.interpolate(x, size=(299, 299), mode='bilinear', align_corners=False)
  return y.permute(0, 2, 3, 1).numpy()


def metrics(real: np.ndarray, fake: np.ndarray, logits: np.ndarray, kid_subset_size: int) -> dict:
  """Every metric of torch-fidelity and prdc, from float64 copies of the features."""
  real, fake, logits = (torch.tensor(a).double() for a in (real, fake, logits))
  statistics = [metric_fid.fid_features_to_statistics(f) for f in (fake, real)]
  precision_recall = metric_prc.prc_features_to_metric(fake, real, verbose=False)
  kid = metric_kid.kid_features_to_metric(
    fake, real, kid_subset_size=kid_subset_size, verbose=False
  )
  score = metric_isc.isc_features_to_metric(logits)
  with contextlib.redirect_stdout(io.StringIO()):
    manifolds = prdc.prdc.compute_prdc(real.numpy(), fake.numpy(), nearest_k=5)
  return {
    'frechet_distance': metric_fid.fid_statistics_to_metric(*statistics, verbose=False)[
      metric_fid.KEY_METRIC_FID
    ],
    'inception_score': [
      score[metric_isc.KEY_METRIC_ISC_MEAN],
      score[metric_isc.KEY_METRIC_ISC_STD],
    ],
    'kid': [kid[metric_kid.KEY_METRIC_KID_MEAN], kid[metric_kid.KEY_METRIC_KID_STD]],
    'precision_recall': [precision_recall['precision'], precision_recall['recall']],
    'precision_recall_5': [manifolds['precision'], manifolds['recall']],
    'density_coverage_5': [manifolds['density'], manifolds['coverage']],
  }
