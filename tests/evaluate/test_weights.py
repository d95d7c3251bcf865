"""Where the Inception weights are looked for, and what is said when they are not there."""

import pytest

from cfg_jax.evaluate.extractors import weights


class TestLocate:
  @pytest.fixture(autouse=True)
  def cache(self, tmp_path, monkeypatch):
    monkeypatch.delenv('CFG_JAX_INCEPTION', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'cfg_jax'

  def test_fetches_once_and_checks(self, tmp_path, monkeypatch, cache):
    public = tmp_path / 'public.pth'
    public.write_bytes(b'the weights')
    monkeypatch.setattr(weights, 'URL', public.as_uri())
    with pytest.raises(ValueError, match=f'sha256.*download .* and put it at {cache}'):
      weights.locate()
    assert list(cache.iterdir()) == [], 'a file with another sha is not kept'
    monkeypatch.setattr(weights, 'SHA256', weights.sha256(public))
    path = weights.locate()
    assert path.read_bytes() == b'the weights'
    public.unlink()
    assert weights.locate() == path

  def test_offline_says_what_to_do(self, monkeypatch, cache):
    monkeypatch.setattr(weights, 'URL', 'file:///nowhere/weights.pth')
    with pytest.raises(ValueError, match=f'download file.*put it at {cache}') as error:
      weights.locate()
    assert '\n' not in str(error.value)

  def test_given_file_wins(self, tmp_path, monkeypatch):
    path = tmp_path / 'mine.pth'
    with pytest.raises(ValueError, match='no such file'):
      weights.locate(path)
    path.touch()
    assert weights.locate(path) == path
    monkeypatch.setenv('CFG_JAX_INCEPTION', str(path))
    assert weights.locate() == path
