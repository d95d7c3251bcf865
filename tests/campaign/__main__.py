"""Kills, damaged files, bad inputs and full disks, by the hundred; prints what came of them.

  python -m tests.campaign --out DIR [--short] [--lanes 2] [--seed 0]

The full form takes about 25 minutes of two cores. It can be stopped and given again: what is done
is in DIR/done.jsonl. It ends with code 1 if anything was lost, silently wrong, or a traceback.
`--short` is every n-th trial, in 3 minutes.
"""

import argparse
import collections
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.campaign import damage, disk, inputs, kills, warm
from tests.campaign.world import World, environment

WRONG = ('lost', 'silent', 'unnamed', 'traceback', 'told_not', 'failed')


def trials(short: bool) -> list[tuple[str, int]]:
  """(kind of trial, its number), in the order in which they are carried out."""
  rounds = {'sweep': 2, 'run': 9, 'data': 2, 'stop': 3, 'two': 1, 'disk': 2, 'environments': 1}
  if short:
    rounds = {'run': 1, 'stop': 1, 'two': 1, 'disk': 1, 'environments': 1}
  found = [(kind, i) for kind, n in rounds.items() for i in range(n)]
  damages, bad = range(len(damage.trials())), range(len(inputs.cases()))
  if short:
    damages = [i for i in damages if not damage.trials()[i][0].startswith('a sweep')][:8]
    bad = bad[:: len(bad) // 40]
  return found + [('damage', i) for i in damages] + [('input', i) for i in bad]


def carry_out(
  kind: str, number: int, world: World, lane: Path, seed: int, expected: dict
) -> Iterator[dict]:
  """The trial's results."""
  dice, trial = random.Random(f'{seed} {kind} {number}'), lane / kind
  of_rounds: dict[str, Callable] = {
    'run': kills.round_of_run,
    'data': kills.round_of_data,
    'sweep': kills.round_of_sweep,
    'stop': kills.stop,
    'two': kills.two_at_once,
    'disk': disk.full,
  }
  if kind in of_rounds:
    return of_rounds[kind](world, trial, dice)
  if kind == 'damage':
    return damage.damage(world, trial, *damage.trials()[number], dice, expected)
  if kind == 'environments':
    return inputs.environments(world, trial)
  return inputs.bad_input(world, trial, number)


def work(world: World, todo: list[tuple[str, int]], lane: Path, done: Path, seed: int) -> None:
  """A lane: carries out its trials, one after another, and notes what came of each."""
  expected = {}
  for kind, number in todo:
    begin = time.monotonic()
    try:
      found = list(carry_out(kind, number, world, lane, seed, expected))
    except Exception as error:  # of the campaign itself, or of what it cannot read any more
      found = [{'kind': kind, 'failed': f'{type(error).__name__}: {error}'[:600]}]
    line = {'trial': [kind, number], 'results': found, 'seconds': time.monotonic() - begin}
    with done.open('a') as file:
      file.write(json.dumps(line) + '\n')
    for result in found:
      if any(name in result for name in WRONG):
        print(json.dumps(result), flush=True)


def table(lines: list[dict]) -> str:
  """The counts that README's table of promises shows."""
  by_kind = collections.defaultdict(list)
  for line in lines:
    by_kind[line['trial'][0]] += line['results']
  killed = [r for k in ('run', 'data', 'sweep') for r in by_kind[k] if 'inside' in r]
  inside = sum(r['inside'] for r in killed)
  damaged = by_kind['damage']
  kinds = {r['kind'] for r in damaged}
  told = by_kind['input'] + by_kind['environments']
  full = [r for r in by_kind['disk'] if r.get('outcome') == 'told']
  seconds = [r['seconds'] for r in by_kind['stop'] if 'seconds' in r]
  named = sum(r.get('outcome') == 'named' for r in damaged)
  same = sum(r.get('outcome') == 'same' for r in damaged)
  everything = [r for line in lines for r in line['results']]
  wrong = {name: sum(name in r for r in everything) for name in WRONG}
  stopped = f'{max(seconds):.1f} s at most, of {len(seconds)}' if seconds else 'not tried'
  rows = (
    ('processes killed (SIGKILL) and gone on with', f'{len(killed)}, {inside} inside a write'),
    ('files damaged', f'{len(damaged)} of {len(kinds)} kinds: {named} named, {same} harmless'),
    ('bad inputs told in one line', f'{sum("outcome" in r for r in told)} of {len(told)}'),
    ('disks that filled up', f'{len(full)}'),
    ('SIGTERM or Ctrl-C until all is saved', stopped),
    ('two of a command at once', f'{sum("lost" not in r for r in by_kind["two"])} pairs'),
    ('lost', wrong['lost']),
    ('silently wrong', wrong['silent']),
    ('not named, or not in one line', wrong['unnamed'] + wrong['told_not']),
    ('tracebacks', wrong['traceback']),
    ('trials that could not be judged', wrong['failed']),
  )
  return '\n'.join(f'{name:<46}{value}' for name, value in rows)


def main() -> int:
  """The command."""
  parser = argparse.ArgumentParser(prog='python -m tests.campaign', description=__doc__)
  parser.add_argument('--out', type=Path, required=True, help='a folder, for all of it')
  parser.add_argument('--short', action='store_true', help='three minutes')
  parser.add_argument('--lanes', type=int, default=len(os.sched_getaffinity(0)))
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--only', help='kinds of trials, by commas: run,damage,input,…')
  given = parser.parse_args()
  out = given.out.absolute()
  out.mkdir(parents=True, exist_ok=True)
  environment(out / 'cache')
  warm.warm_up()
  world, done = World(out), out / 'done.jsonl'
  world.build()
  before = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
  known = {tuple(line['trial']) for line in before}
  todo = [trial for trial in trials(given.short) if trial not in known]
  if given.only:
    todo = [trial for trial in todo if trial[0] in given.only.split(',')]
  lanes = []
  for i in range(given.lanes):
    if not (pid := os.fork()):
      work(world, todo[i :: given.lanes], out / f'lane{i}', done, given.seed)
      os._exit(0)
    lanes.append(pid)
  for pid in lanes:
    os.waitpid(pid, 0)
  lines = [json.loads(line) for line in done.read_text().splitlines()]
  print(table(lines))
  return int(any(name in r for line in lines for r in line['results'] for name in WRONG))


if __name__ == '__main__':
  sys.exit(main())
