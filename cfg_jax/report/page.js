'use strict';
const $ = id => document.getElementById(id);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const data = JSON.parse($('data').textContent);

// Curves: switch lines off and on; a tip for each point.
for (const box of all('[data-toggle]')) {
  const show = () => {
    for (const g of all(`[data-group="${box.dataset.toggle}"]`)) g.toggleAttribute('hidden', !box.checked);
  };
  box.addEventListener('change', show);
  show();
}
for (const select of all('.at-cost')) {
  select.addEventListener('change', () => {
    for (const [i, part] of all('.cost', select.closest('.by-cost')).entries()) part.hidden = i !== Number(select.value);
  });
}
const tip = document.body.appendChild(Object.assign(document.createElement('div'), {className: 'tip', hidden: true}));
document.addEventListener('pointerover', event => {
  const point = event.target.closest?.('.point');
  tip.hidden = !point;
  if (!point) return;
  tip.textContent = point.dataset.tip;
  const at = point.getBoundingClientRect();
  tip.style.left = Math.max(8, Math.min(at.left + 16, innerWidth - tip.offsetWidth - 8)) + 'px';
  tip.style.top = Math.max(8, at.top - tip.offsetHeight) + 'px';
});

// The table: sort by a column, once more to turn it round; cells without a value stay last.
for (const [column, head] of all('#table thead button').entries()) {
  head.addEventListener('click', () => {
    const th = head.parentElement, down = th.getAttribute('aria-sort') === 'ascending';
    for (const other of all('#table th')) other.removeAttribute('aria-sort');
    th.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const body = document.querySelector('#table tbody');
    const value = row => {
      const cell = row.cells[column];
      return 'v' in cell.dataset ? parseFloat(cell.dataset.v) : cell.textContent;
    };
    const missing = v => v === '' || Number.isNaN(v);
    const order = (a, b) => {
      const x = value(a), y = value(b);
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      const sign = typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y), 'en', {numeric: true});
      return down ? -sign : sign;
    };
    body.append(...[...body.rows].sort(order));
  });
}
document.querySelector('#table tbody')?.addEventListener('click', event => {
  const button = event.target.closest('.more');
  if (!button) return;
  const list = document.querySelector('#provenance dl');
  list.replaceChildren(...[...data.rows[button.dataset.row], ...data.same].flatMap(([k, v]) => [
    Object.assign(document.createElement('dt'), {textContent: k}), Object.assign(document.createElement('dd'), {textContent: v})]));
  $('provenance').showModal();
});
document.querySelector('#provenance .close')?.addEventListener('click', () => $('provenance').close());

// The explorer: one set of sheets for each choice of settings; a sheet's rows are classes, its columns values on the axis.
function draw(stage, set, index, column, only) {
  const [width, height] = set.pitch, noises = set.indices.length;
  const every = [...set.classes.keys()], across = only !== null ? Math.min(4, noises) : width < 32 ? every.length : Math.min(5, every.length);
  // Blocks of tiles [class, noise], row by row: one block, or several where all classes in a row would be too small.
  const blocks = only !== null
    ? [{heads: [], tiles: [...Array(noises).keys()].map(k => [only, k])}]
    : every.filter(c => c % across === 0).map(c => every.slice(c, c + across)).map(part => ({
        heads: part, tiles: [...Array(noises).keys()].flatMap(k => [...part, ...Array(across - part.length).fill(-1)].map(c => [c, k]))}));
  stage.replaceChildren(...blocks.flatMap(({heads, tiles}) => {
    const canvas = document.createElement('canvas');
    canvas.width = across * width - set.gap; canvas.height = Math.ceil(tiles.length / across) * height - set.gap;
    canvas.style.maxWidth = `${across * Math.max(112, width)}px`;
    canvas.classList.toggle('pixels', set.scale > 1);
    const context = canvas.getContext('2d');
    tiles.forEach(([row, k], i) => {
      if (row >= 0) context.drawImage($(`sheet-${index}-${k}`), column * width, row * height, width - set.gap, height - set.gap,
        i % across * width, Math.floor(i / across) * height, width - set.gap, height - set.gap);
    });
    const labels = document.createElement('div');
    labels.className = 'heads';
    labels.style.gridTemplateColumns = `repeat(${across}, 1fr)`;
    labels.append(...heads.map(c => Object.assign(document.createElement('span'), {textContent: set.classes[c]})));
    return [labels, canvas];
  }));
}
if (data.sets.length) {
  const choices = all('[data-choice]'), slider = $('slider'), classes = $('class');
  let index = -1, at = '1';
  const show = () => {
    const found = data.sets.findIndex(s => choices.every(c => s.settings[c.dataset.choice] === c.value));
    if (found < 0) { $('readout').textContent = 'There are no samples for this choice on disk.'; return; }
    const set = data.sets[found];
    if (found !== index) {
      index = found;
      slider.max = set.x.length - 1;
      slider.value = set.x.indexOf(set.x.reduce((a, b) => Math.abs(b - at) < Math.abs(a - at) ? b : a));
      const before = classes.value;
      classes.replaceChildren(...['all', ...set.classes].map(c => new Option(c)));
      if ([...classes.options].some(o => o.value === before)) classes.value = before;
    }
    const column = Number(slider.value), only = classes.value === 'all' ? null : set.classes.indexOf(classes.value);
    at = set.x[column];
    $('at').textContent = `${data.axis} = ${at}`;
    slider.setAttribute('aria-valuetext', `${data.axis} = ${at}`);
    $('readout').textContent = set.metrics[column].map(([k, v]) => `${k} ${v}`).join('  ·  ');
    for (const [id, j] of [['before', 0], ['now', column]]) {
      draw($(id), set, index, j, only);
      const text = `${data.axis} = ${set.x[j]}`;
      $(id).parentElement.querySelector('figcaption').textContent = text;
      $(id).setAttribute('aria-label', `Samples of ${only === null ? 'each class' : 'class ' + classes.value}, ${set.name}, ${text}`);
    }
    for (const point of all('.point')) point.classList.toggle('now', point.dataset.x === at);
  };
  for (const select of [...choices, classes]) select.addEventListener('change', show);
  slider.addEventListener('input', show);
  Promise.all(all('[id^="sheet-"]').map(image => image.decode())).then(show);
}
