"""The report's page in a real browser: Debian's chromium."""

import os
import shutil

import numpy as np
import pytest

from cfg_jax.report import page as report
from tests.report.reports import STUDY, W, write_run


@pytest.fixture(scope='module')
def shown(tmp_path_factory):
  """A report, as a file: two numbers of steps for one p_uncond, many w for another."""
  workdir = tmp_path_factory.mktemp('shown')
  for p in (0.1, 0.2, 0.5):
    write_run(workdir, f'p_uncond={p}', p, ws=W if p != 0.2 else [j / 10 for j in range(41)])
  write_run(workdir, 'p_uncond=0.1', 0.1, num_steps=64)
  report.write_report(workdir, STUDY)
  return workdir / 'report.html'


@pytest.fixture
def open_page():
  """Skipped without selenium or chromium, except in CI, where these tests must run."""
  if not os.environ.get('CI'):
    pytest.importorskip('selenium')
    if not shutil.which('chromium'):
      pytest.skip('no chromium on PATH')
  from experiments import report_screenshots

  return report_screenshots.open_page


def stage(browser, name):
  script = 'return document.querySelector(arguments[0]).toDataURL()'
  return browser.execute_script(script, f'#{name} canvas')


def ready(browser):
  from selenium.webdriver.support.ui import WebDriverWait

  WebDriverWait(browser, 10).until(
    lambda b: b.execute_script('return document.querySelector("#now canvas") !== null')
  )


@pytest.mark.slow
def test_explorer(shown, open_page):
  from selenium.webdriver.common.by import By
  from selenium.webdriver.common.keys import Keys
  from selenium.webdriver.support.ui import Select

  with open_page(shown, 1180, 900) as browser:
    ready(browser)

    def text(name):
      return browser.find_element(By.ID, name).text

    slider = browser.find_element(By.ID, 'slider')
    assert text('at') == 'w = 1' and slider.get_attribute('aria-valuetext') == 'w = 1'
    before, now = stage(browser, 'before'), stage(browser, 'now')
    slider.send_keys(Keys.ARROW_RIGHT)
    assert text('at') == 'w = 2' and 'FD-digits 34.9' in text('readout')
    assert stage(browser, 'before') == before and stage(browser, 'now') != now
    marked = browser.find_elements(By.CSS_SELECTOR, '.point.now')
    assert {m.get_attribute('data-x') for m in marked} == {'2'} and len(marked) == 4 * 3
    slider.send_keys(Keys.HOME)
    assert text('at') == 'w = 0' and stage(browser, 'now') == before

    Select(browser.find_element(By.ID, 'class')).select_by_visible_text('3')
    assert stage(browser, 'now') != before
    label = browser.find_element(By.ID, 'now').get_attribute('aria-label')
    assert label == 'Samples of class 3, p_uncond = 0.1, num_steps = 32, w = 0'
    for choice, value in (('num_steps', '64'), ('p_uncond', '0.5')):
      select = browser.find_element(By.CSS_SELECTOR, f'[data-choice={choice}]')
      Select(select).select_by_visible_text(value)
    assert 'no samples' in text('readout')  # p_uncond = 0.5 was sampled in 32 steps alone
    assert browser.get_log('browser') == []


@pytest.mark.slow
def test_table_and_curves(shown, open_page):
  from selenium.webdriver.common.by import By
  from selenium.webdriver.common.keys import Keys

  with open_page(shown, 1180, 900) as browser:
    ready(browser)

    def column(j):
      cells = browser.find_elements(By.CSS_SELECTOR, f'#table tbody td:nth-child({j + 1})')
      return [float(c.get_attribute('data-v')) for c in cells]

    heads = browser.find_elements(By.CSS_SELECTOR, '#table thead button')
    j = [h.text.split()[0] for h in heads].index('FD-digits')
    unsorted = column(j)
    heads[j].send_keys(Keys.ENTER)
    assert column(j) == sorted(unsorted) != unsorted
    heads[j].send_keys(Keys.ENTER)
    assert column(j) == sorted(unsorted, reverse=True)
    th = browser.find_elements(By.CSS_SELECTOR, '#table [aria-sort]')
    assert [h.get_attribute('aria-sort') for h in th] == ['descending']

    browser.find_element(By.CSS_SELECTOR, '#table .more').send_keys(Keys.ENTER)
    dialog = browser.find_element(By.ID, 'provenance')
    assert dialog.is_displayed() and 'cd' * 32 in dialog.text and '87.5' in dialog.text
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()

    line = browser.find_element(By.CSS_SELECTOR, '[data-group="1"] .line')
    assert line.is_displayed()
    browser.find_element(By.CSS_SELECTOR, '[data-toggle="1"]').send_keys(Keys.SPACE)
    assert not line.is_displayed()
    assert browser.get_log('browser') == []


@pytest.mark.slow
def test_the_whole_table_and_the_panel_for_cost_are_in_sight(tmp_path, open_page):
  from selenium.webdriver.common.by import By
  from selenium.webdriver.support.ui import Select

  names = ('KID', 'accuracy', 'coverage', 'density', 'precision', 'recall')
  metrics = {'FD-digits': 12.4, 'IS': 9.5} | dict.fromkeys(names, 0.987)
  best = {'name': 'dpmpp', 'grid': 'edm', 'order': 2, 'singlestep': False}
  for p in (0.1, 0.5):
    write_run(tmp_path, f'p={p}', p, n=20, sampler=best, num_steps=8, metrics=metrics, error=0.03)
  write_run(tmp_path, 'p=0.1', 0.1, n=20, num_steps=12, metrics=metrics, error=0.03)
  report.write_report(tmp_path, STUDY)
  with open_page(tmp_path / 'report.html', 1200, 900) as browser:
    ready(browser)
    table = browser.find_element(By.ID, 'table')
    around = table.find_element(By.XPATH, '..')
    for side in ('Width', 'Height'):
      inner, outer = (around.get_property(f'{part}{side}') for part in ('scroll', 'client'))
      assert inner <= outer, side
    assert len(table.find_elements(By.CSS_SELECTOR, 'tbody tr')) == 3 * len(W)
    shown = browser.find_elements(By.CSS_SELECTOR, '.cost')
    Select(browser.find_element(By.CSS_SELECTOR, '.at-cost')).select_by_visible_text('2')
    assert [part.is_displayed() for part in shown] == [w == 2 for w in W]
    assert browser.get_log('browser') == []  # nothing that the page's policy forbids


@pytest.mark.slow
@pytest.mark.parametrize('width, dark', [(1180, False), (360, False), (360, True)])
def test_fits_the_screen_and_the_mode(shown, open_page, width, dark):
  from experiments.report_screenshots import screenshot

  with open_page(shown, width, 800, dark) as browser:
    ready(browser)
    assert browser.execute_script('return document.documentElement.scrollWidth') <= width
    pixels = np.array(screenshot(browser))
    background, ink = np.median(pixels), pixels.min() if not dark else pixels.max()
    assert (background < 40 and ink > 200) if dark else (background > 240 and ink < 60)
    assert browser.get_log('browser') == []
