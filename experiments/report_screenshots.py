"""Pictures of a report for the README: desktop, phone width and dark mode, by headless Chromium.

  python -m experiments.report_screenshots --workdir runs/digits --out docs

Needs Debian's `chromium` and `chromium-driver`, and `pip install -e '.[browser]'`.
"""

import base64
import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from absl import flags
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from cfg_jax.core import command as cli
from cfg_jax.core.errors import UserError

# Name → width and height in CSS pixels, dark mode, the section at the top, width of the picture.
VIEWS = {
  'desktop': (1180, 1200, False, None, 720),
  'phone': (390, 844, False, 'curves', 300),
  'dark': (1180, 800, True, 'explorer', 720),
}


@contextlib.contextmanager
def open_page(
  page: Path, width: int, height: int, dark: bool = False
) -> Iterator[webdriver.Chrome]:
  """A browser at `page` (file://) with the given viewport; motion is off.

  Raises:
    ValueError: Chromium or its driver is not installed.
  """
  chromium, driver = shutil.which('chromium'), shutil.which('chromedriver')
  if not (chromium and driver):
    raise UserError('no chromium on PATH; apt-get install chromium chromium-driver.')
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
      *('headless', 'no-sandbox', 'disable-gpu', 'disable-background-networking', 'no-first-run'),
      'hide-scrollbars',
      *(f'user-data-dir={profile}', f'window-size={width},{height}'),
    ):
      options.add_argument(f'--{argument}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
      browser.execute_cdp_cmd(
        'Emulation.setDeviceMetricsOverride',
        {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 500},
      )
      features = {'prefers-color-scheme': 'dark' if dark else 'light'}
      features['prefers-reduced-motion'] = 'reduce'
      browser.execute_cdp_cmd(
        'Emulation.setEmulatedMedia',
        {'features': [{'name': k, 'value': v} for k, v in features.items()]},
      )
      browser.get(page.resolve().as_uri())
      yield browser
    finally:
      browser.quit()


def screenshot(browser: webdriver.Chrome) -> Image.Image:
  """What the viewport shows, RGB."""
  png = browser.execute_cdp_cmd('Page.captureScreenshot', {})['data']
  return Image.open(io.BytesIO(base64.b64decode(png))).convert('RGB')


def main(argv: list[str]) -> None:
  """The command."""
  del argv
  page, out = Path(flags.FLAGS.workdir) / 'report.html', Path(flags.FLAGS.out)
  if not page.is_file():
    raise UserError(f'{page} is not there; run cfg_jax.report --workdir first.')
  out.mkdir(parents=True, exist_ok=True)
  for name, (width, height, dark, section, shown) in VIEWS.items():
    with open_page(page, width, height, dark) as browser:
      if section:
        browser.execute_script(f'document.getElementById("{section}")?.scrollIntoView()')
      image = screenshot(browser)
    image = image.resize((shown, round(shown * height / width)), Image.Resampling.LANCZOS)
    image = image.quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    image.save(out / f'report_{name}.png', optimize=True)


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'The sweep whose report is shown.', required=True)
  flags.DEFINE_string('out', 'docs', 'Folder for the pictures.')
  cli.run(main)
