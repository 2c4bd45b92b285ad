// The page: state, what is drawn, and what people do. Nothing is loaded from anywhere but this server.

import { api, ApiError, Unsent } from './api.js';
import { cellAt, colour, drawBar, extent, floats, fromRuns, heatmap, outline, runs, scores } from './drawing.js';

const $ = id => document.getElementById(id);
const HEAT = 512, MASK = 1024, MOST_PANELS = 6;

const view = {
  info: null, pictures: [], total: 0, search: '', at: -1, picture: null, image: null, standing: [], last: 0,
  panels: [], active: 0, gamma: 1, threshold: 'half-max', opacity: 0.7, mix: 0.5, taught: '', mapOn: true,
  tool: 'look', brush: 24, scales: new Map(), marks: new Map(), versions: new Map(), written: new Map(), offered: 0, loading: 0, fetched: 0,
};
const store = (name, value) => { try { if (value === undefined) return localStorage.getItem(`concept-cam-${name}`); localStorage.setItem(`concept-cam-${name}`, value); } catch { return null; } };
const active = () => view.panels[view.active];
const percent = value => value === null || value === undefined ? '–' : value > 0.9995 ? '> 99.9 %' : `${(100 * value).toFixed(value < 0.1 || value > 0.99 ? 1 : 0)} %`;
const signed = value => value === null || value === undefined || !Number.isFinite(value) ? '–' : `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(3)}`;
const readable = name => name.replaceAll('_', ' ');
const SAID = { accept: () => 'right', reject: () => 'wrong', state: item => `rather ${readable(item.state)}`, cannot_tell: () => 'cannot be told', '': () => 'no verdict yet' };
const said = item => SAID[item.verdict](item);

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith('aria-') || key.startsWith('data-') || key === 'role' || key === 'for') made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

let messageTimer;
function say(text, stay = false) {
  const box = $('message');
  box.textContent = text;
  box.hidden = !text;
  clearTimeout(messageTimer);
  if (!stay) messageTimer = setTimeout(() => { box.hidden = true; }, 7000 + 50 * Math.max(0, text.length - 120));  // Long ones take longer to read.
}
const speak = text => { $('spoken').textContent = text; };

// ------------------------------------------------------------------------------------------------------------ questions

const keyOf = question => JSON.stringify(question.mode === 'words' ? ['w', question.target, ...question.contrasts] : ['c', question.pack, question.character, question.state]);

function titleOf(question) {
  if (question.mode === 'words') return question.target + (question.contrasts.length ? ` vs. ${question.contrasts.join(' | ')}` : '');
  return `${readable(question.character)}${question.state ? `: ${readable(question.state)}` : ''}`;
}

// Over the picture stands what its map is of. A state that nobody chose is the model's own word, and is doubted there as in the headline.
function captionOf({ question, answer }) {
  if (!answer || question.mode !== 'pack') return titleOf(question);
  const doubted = !question.state && (answer.call.abstained || headline(answer).unfound || otherThanCalled(answer));
  return `${answer.question.name.split('=').map(readable).join(': ')}${doubted ? '?' : ''}`;
}

function plain(question) {
  const words = question.mode === 'words' ? { target: question.target, contrasts: question.contrasts }
    : { character: `${question.pack}:${question.character}`, ...(question.state ? { state: question.state } : {}) };
  return { ...words, gamma: view.gamma, threshold: view.threshold, ...(view.taught ? { taught: view.taught, mix: view.mix } : {}) };
}

const markKey = panel => `${view.picture?.id}|${panel.answer ? JSON.stringify([panel.answer.subject.pack, panel.answer.subject.character, panel.answer.subject.part]) : keyOf(panel.question)}`;

function marksOf(panel) {
  const key = markKey(panel);
  if (!view.marks.has(key)) view.marks.set(key, { mask: null, size: null, boxes: [], clicks: [], verdict: '', state: '', current: null, seen: 0 });
  return view.marks.get(key);
}

// Shows what counts on the server now, unless this tab said something newer that is still on its way. Returns whether it differs.
function takeStanding(panel) {
  if (!panel.answer) return false;
  const { pack, character, part } = panel.answer.subject, marks = marksOf(panel);
  const found = view.standing.find(item => item.pack === pack && item.character === character && item.part === part) ?? null;
  if (unsent.of(markKey(panel)).length || (found?.id ?? null) === (marks.current?.id ?? null)) return false;
  applyCorrection(marks, found, Math.max(view.last, marks.seen));
  return true;
}

// What counts becomes what is drawn: a correction of the server, or one that waits here to be sent.
function applyCorrection(marks, correction, seen, waiting) {
  marks.current = correction;
  marks.seen = seen;
  const own = waiting ?? correction, drawn = waiting ? waiting.mask : correction?.drawn;
  marks.verdict = own?.verdict ?? ''; marks.state = own?.state ?? '';
  marks.boxes = (own?.boxes ?? []).map(box => [...box]);
  marks.clicks = ((waiting ? waiting.question.clicks : correction?.clicks) ?? []).map(click => [...click]);
  marks.size = drawn?.size ?? null;
  marks.mask = drawn ? fromRuns(drawn.runs, marks.size[0] * marks.size[1]) : null;
  marks.shown = null;
}

async function ask(panel, withMap = true) {
  if (!view.picture || !panel.question.target && panel.question.mode === 'words') return;
  panel.controller?.abort();
  const controller = panel.controller = new AbortController();
  const picture = view.picture;
  if (withMap && !panel.answer) { panel.waiting = true; draw(panel); }
  const clicks = panel.answer ? marksOf(panel).clicks : [];
  const started = performance.now();
  try {
    const answer = await api.ask({ picture: picture.id, ...plain(panel.question), map: withMap, ...(clicks.length ? { clicks } : {}) }, controller.signal);
    if (controller.signal.aborted || picture !== view.picture) return;
    const version = view.versions.get(picture.id);
    view.versions.set(picture.id, answer.picture.version);
    if (version !== undefined && version !== answer.picture.version) {
      // The file was written anew: what is here is of the old one, and a browser does not ask twice for one address.
      view.written.set(picture.id, answer.picture.version);
      const small = document.querySelectorAll('#strip img')[view.at];
      if (small) small.src = api.image(picture.id, 160, answer.picture.version);
      showPicture();
      return;
    }
    const first = !panel.answer;
    panel.answer = answer;
    panel.took = performance.now() - started;
    panel.problem = ''; panel.again = false;
    if (answer.map) {
      panel.map = { ...answer.map, cosines: floats(answer.map.cosines), prototype: answer.map.prototype ? floats(answer.map.prototype) : null };
    }
    takeStanding(panel);
    if (first && marksOf(panel).clicks.length) refresh();
    if (!view.scales.has(scaleKey(panel.question))) fitScale(panel);
  } catch (error) {
    if (error.name === 'AbortError') return;
    // A server that is away or busy says nothing about the question: what is here stays, and it is asked again when it answers.
    panel.again = error.status === 0 || error.status === 503;
    if (panel === active()) say(error.message);
    if (!panel.again || !panel.answer) { panel.problem = error.message; panel.answer = null; panel.map = null; }
  }
  panel.waiting = false;
  draw(panel);
  if (panel === active()) showAnswer();
}

// What is taught has scores of another size than the words have: the scale is one for each.
const scaleKey = question => keyOf(question) + (view.taught ? `|${view.taught}` : '');

function fitScale(panel) {
  // With something taught the scale holds for every share of it: the slider is to show what changes, not to saturate.
  const extents = (panel.map.prototype ? [0, 1] : [0]).map(mix => extent(scores(panel.map, view.gamma, mix)));
  const found = { low: Math.min(...extents.map(item => item.low)), high: Math.max(...extents.map(item => item.high)) };
  const isSigned = panel.map.weights.length > 0;
  const round = value => { const unit = Math.pow(10, Math.floor(Math.log10(Math.max(value, 1e-4)))) / 2; return Math.ceil(value / unit) * unit; };
  const reach = isSigned ? round(Math.max(Math.abs(found.low), Math.abs(found.high))) : found.high;
  view.scales.set(scaleKey(panel.question), { signed: isSigned, reach: Number(reach.toFixed(4)), low: isSigned ? -reach : found.low });
}

const scaleOf = panel => view.scales.get(scaleKey(panel.question)) ?? { signed: true, reach: 0.5, low: -0.5 };

let refreshTimer;
function refresh() {
  clearTimeout(refreshTimer);
  refreshTimer = setTimeout(() => { for (const panel of view.panels) if (panel.answer) ask(panel, view.taught !== (panel.answer.taught?.name ?? '')); }, 70);
}

// -------------------------------------------------------------------------------------------------------------- drawing

function limitOf(panel, values) {
  if (typeof view.threshold === 'number') return view.threshold;
  if (view.threshold === 'half-max') { const high = extent(values).high; return high > 0 ? high / 2 : Infinity; }
  return panel.answer?.threshold.value ?? Infinity;
}

function compute(panel) {
  const { map } = panel, [rows, columns] = map.original, share = HEAT / Math.max(rows, columns);
  const width = Math.max(1, Math.round(columns * share)), height = Math.max(1, Math.round(rows * share));
  const grid = scores(map, view.gamma, view.taught ? view.mix : 0);
  const values = heatmap(grid, map, width, height);
  const limit = limitOf(panel, grid);
  if (!panel.heat || panel.heat.width !== width || panel.heat.height !== height) {
    panel.heat = element('canvas', { width, height });
    panel.pixels = new ImageData(width, height);
  }
  colour(values, panel.pixels, scaleOf(panel), view.opacity);
  panel.heat.getContext('2d').putImageData(panel.pixels, 0, 0);
  Object.assign(panel, { grid, values, limit, edge: Number.isFinite(limit) ? outline(values, width, height, limit) : null });
}

function place(panel) {
  // Where the picture lies on the canvas, and how many canvas pixels an original pixel is.
  const { canvas } = panel, [rows, columns] = originalSize();
  const scale = Math.min(canvas.width / columns, canvas.height / rows);
  return { scale, left: (canvas.width - columns * scale) / 2, top: (canvas.height - rows * scale) / 2 };
}

// The picture at the size at which it is shown, scaled once: a slider then only moves the map.
const shown = { image: null, canvas: null };
function sized(width, height) {
  if (shown.image !== view.image || shown.canvas.width !== width || shown.canvas.height !== height) {
    shown.image = view.image;
    shown.canvas = element('canvas', { width: Math.max(width, 1), height: Math.max(height, 1) });
    const context = shown.canvas.getContext('2d', { alpha: false });
    context.imageSmoothingQuality = 'high';
    context.drawImage(view.image, 0, 0, width, height);
  }
  return shown.canvas;
}

const originalSize = () => view.panels.find(panel => panel.map)?.map.original ?? view.picture?.size ?? [view.image?.naturalHeight || 3, view.image?.naturalWidth || 4];

let frame = 0;
const dirty = new Set();
function draw(panel) {
  dirty.add(panel);
  if (!frame) frame = requestAnimationFrame(() => { frame = 0; const list = [...dirty]; dirty.clear(); list.forEach(paint); });
}
const drawAll = () => view.panels.forEach(draw);

function paint(panel) {
  const { canvas } = panel;
  if (!canvas?.isConnected) return;
  const ratio = Math.min(window.devicePixelRatio || 1, 2), box = canvas.getBoundingClientRect();
  const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const context = canvas.getContext('2d');
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  const asked = captionOf(panel) || 'Type what to find';
  panel.titleBox.textContent = panel.problem ? `⚠ ${panel.problem}` : panel.answer?.taught ? `${asked} · with “${panel.answer.taught.name}”, taught, not zero-shot` : asked;
  panel.waitBox.hidden = !panel.waiting;
  const ready = view.image?.complete && view.image.naturalWidth;
  if (!ready && (view.image || !panel.map)) return;
  const { scale, left, top } = place(panel), [rows, columns] = originalSize();
  // An index may be asked where its pictures are not.
  if (!ready) { context.fillStyle = '#414b4f'; context.fillRect(left, top, columns * scale, rows * scale); } else context.drawImage(sized(Math.round(columns * scale), Math.round(rows * scale)), left, top, columns * scale, rows * scale);
  if (panel.map) {
    compute(panel);
    if (view.mapOn) context.drawImage(panel.heat, left, top, columns * scale, rows * scale);
    const marks = marksOf(panel);
    if (view.mapOn && panel.edge && !marks.mask) stroke(context, panel.edge, { left, top, scale: columns * scale / panel.heat.width }, ratio);
    if (marks.mask) drawMask(context, marks, left, top, columns * scale, rows * scale, ratio);
    context.setTransform(scale, 0, 0, scale, left, top);
    const line = ratio / scale;
    if (panel.region) {
      for (const contour of panel.region.contours) { context.beginPath(); contour.forEach(([x, y], i) => i ? context.lineTo(x, y) : context.moveTo(x, y)); twoTone(context, 3 * line, '#ffe14d'); }
    }
    for (const [x0, y0, x1, y1] of [...marks.boxes, ...(panel.drawing ? [panel.drawing] : [])]) {
      context.beginPath(); context.rect(x0, y0, x1 - x0, y1 - y0); twoTone(context, 2 * line, '#ffe14d');
    }
    for (const [x, y, sign] of marks.clicks) disc(context, x, y, 6 * line, sign > 0 ? '#2fd07a' : '#ff5a4d', line, sign > 0 ? '+' : '−');
    if (view.mapOn && panel.answer?.peak) cross(context, panel.answer.peak.x, panel.answer.peak.y, 9 * line, line);
    if (panel.cursor && document.activeElement === canvas) cross(context, ...panel.cursor, 14 * line, line, '#ffe14d');
    context.setTransform(1, 0, 0, 1, 0, 0);
  }
}

function twoTone(context, width, tone) {
  context.lineJoin = 'round';
  context.strokeStyle = 'rgb(0 0 0 / .75)'; context.lineWidth = width * 1.9; context.stroke();
  context.strokeStyle = tone; context.lineWidth = width; context.stroke();
}
function stroke(context, path, at, ratio) {
  context.setTransform(at.scale, 0, 0, at.scale, at.left, at.top);
  context.lineCap = 'round';
  context.strokeStyle = 'rgb(0 0 0 / .7)'; context.lineWidth = 3.4 * ratio / at.scale; context.stroke(path);
  context.strokeStyle = '#ffffff'; context.lineWidth = 1.7 * ratio / at.scale; context.stroke(path);
  context.setTransform(1, 0, 0, 1, 0, 0);
}
function disc(context, x, y, radius, tone, line, text) {
  context.beginPath(); context.arc(x, y, radius, 0, 7); context.fillStyle = tone; context.fill();
  context.strokeStyle = '#0b1518'; context.lineWidth = 1.5 * line; context.stroke();
  context.fillStyle = '#0b1518'; context.font = `700 ${radius * 1.9}px system-ui`; context.textAlign = 'center'; context.textBaseline = 'middle'; context.fillText(text, x, y + radius * 0.08);
}
function cross(context, x, y, size, line, tone = '#ffffff') {
  context.beginPath();
  context.moveTo(x - size, y); context.lineTo(x - size / 3, y); context.moveTo(x + size / 3, y); context.lineTo(x + size, y);
  context.moveTo(x, y - size); context.lineTo(x, y - size / 3); context.moveTo(x, y + size / 3); context.lineTo(x, y + size);
  twoTone(context, 1.8 * line, tone);
}
function drawMask(context, marks, left, top, width, height, ratio) {
  if (!marks.shown) {
    const [rows, columns] = marks.size, image = new ImageData(columns, rows);
    for (let i = 0; i < marks.mask.length; i++) if (marks.mask[i]) image.data.set([255, 225, 77, 105], 4 * i);
    const small = element('canvas', { width: columns, height: rows });
    small.getContext('2d').putImageData(image, 0, 0);
    marks.shown = small;
    marks.edge = outline(marks.mask, columns, rows, 0.5);
  }
  context.drawImage(marks.shown, left, top, width, height);
  stroke(context, marks.edge, { left, top, scale: width / marks.size[1] }, ratio);
}

// --------------------------------------------------------------------------------------------------------------- panels

function buildStage() {
  const stage = $('stage');
  stage.replaceChildren();
  const across = view.panels.length === 1 ? 1 : view.panels.length <= 4 ? 2 : 3;
  stage.style.setProperty('--across', across);
  stage.classList.toggle('single', view.panels.length === 1);
  view.panels.forEach((panel, index) => {
    panel.canvas = element('canvas', { tabIndex: 0, role: 'application', 'aria-label': '', 'aria-roledescription': 'picture with map' });
    panel.titleBox = element('div', { className: 'title', 'aria-hidden': 'true' });
    panel.waitBox = element('div', { className: 'wait', hidden: true, textContent: 'looking at the picture …' });
    const box = element('div', { className: `panel${index === view.active ? ' active' : ''}` }, element('div', { className: 'frame' }, panel.canvas, panel.titleBox, panel.waitBox));
    panel.box = box;
    listen(panel, index);
    stage.append(box);
    sizer.observe(panel.canvas);
  });
  buildTabs();
  drawAll();
}
const sizer = new ResizeObserver(entries => entries.forEach(entry => { const panel = view.panels.find(item => item.canvas === entry.target); if (panel) draw(panel); }));

function buildTabs() {
  const tabs = $('tabs');
  tabs.replaceChildren();
  if (view.panels.length > 1) {
    view.panels.forEach((panel, index) => tabs.append(element('span', { className: 'tab' },
      element('button', { type: 'button', textContent: titleOf(panel.question) || 'new question', 'aria-pressed': String(index === view.active), onclick: () => activate(index) }),
      element('button', { type: 'button', textContent: '×', 'aria-label': `Remove the question ${titleOf(panel.question)}`, onclick: () => removePanel(index) }))));
  }
}

function activate(index) {
  view.active = index;
  view.panels.forEach((panel, i) => panel.box.classList.toggle('active', i === index));
  buildTabs(); fillQuestion(); showAnswer(); remember();
}

function removePanel(index) {
  view.panels[index].controller?.abort();
  view.panels.splice(index, 1);
  view.active = Math.min(view.active, view.panels.length - 1);
  buildStage(); fillQuestion(); showAnswer(); remember();
}

function setQuestion(question) {
  const panel = active();
  if (keyOf(panel.question) !== keyOf(question)) { panel.answer = null; panel.map = null; panel.region = null; }
  panel.question = question;
  buildTabs(); remember(); draw(panel); showAnswer();
  ask(panel).then(askProgress);
}

// ---------------------------------------------------------------------------------------------------- pointer and keys

function pointOf(panel, event) {
  const box = panel.canvas.getBoundingClientRect(), { scale, left, top } = place(panel), ratio = panel.canvas.width / box.width;
  return [((event.clientX - box.left) * ratio - left) / scale, ((event.clientY - box.top) * ratio - top) / scale];
}
const inside = ([x, y]) => { const [rows, columns] = originalSize(); return x >= 0 && y >= 0 && x < columns && y < rows; };

function listen(panel, index) {
  const { canvas } = panel;
  let dragging = null;
  canvas.addEventListener('pointerdown', event => {
    if (event.button) return;
    if (view.active !== index) activate(index);
    canvas.focus({ preventScroll: true });
    const point = pointOf(panel, event);
    if (!panel.map || (!inside(point) && view.tool !== 'brush' && view.tool !== 'erase')) return;
    dragging = begin(panel, point);
    if (dragging) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointermove', event => {
    const point = pointOf(panel, event);
    if (dragging) dragging.move(point);
    read(panel, point);
  });
  for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, event => { if (dragging) { dragging.end(pointOf(panel, event)); dragging = null; } });
  canvas.addEventListener('focus', () => { if (view.active !== index) activate(index); draw(panel); });
  canvas.addEventListener('blur', () => draw(panel));
  canvas.addEventListener('keydown', event => keyOnCanvas(panel, event));
}

function begin(panel, point) {
  const marks = marksOf(panel);
  if (view.tool === 'yes' || view.tool === 'no') { click(panel, point); return null; }
  if (view.tool === 'brush' || view.tool === 'erase') {
    startMask(panel);
    let last = point;
    dab(panel, last, point); draw(panel);
    return { move(next) { dab(panel, last, next); last = next; draw(panel); }, end() { save(panel); } };
  }
  if (view.tool === 'box') {
    const reach = 10 / place(panel).scale * (window.devicePixelRatio || 1);
    const corner = marks.boxes.findIndex(([, , x1, y1]) => Math.hypot(point[0] - x1, point[1] - y1) < reach);
    const held = corner >= 0 ? corner : marks.boxes.findIndex(([x0, y0, x1, y1]) => point[0] > x0 && point[0] < x1 && point[1] > y0 && point[1] < y1);
    if (held >= 0) {
      const before = [...marks.boxes[held]];
      return {
        move(next) {
          const dx = next[0] - point[0], dy = next[1] - point[1];
          marks.boxes[held] = corner >= 0 ? orderBox([before[0], before[1], before[2] + dx, before[3] + dy]) : keepInside([before[0] + dx, before[1] + dy, before[2] + dx, before[3] + dy]);
          draw(panel);
        },
        end() { marks.boxes[held] = marks.boxes[held].map(Math.round); if (String(before) !== String(marks.boxes[held])) save(panel); },
      };
    }
    return {
      move(next) { panel.drawing = orderBox([...point, ...next]); draw(panel); },
      end() {
        const box = panel.drawing?.map(Math.round);
        panel.drawing = null;
        if (box && box[2] - box[0] > 2 && box[3] - box[1] > 2) { marks.boxes.push(box); save(panel); }
        draw(panel);
      },
    };
  }
  read(panel, point);
  return null;
}

function orderBox([a, b, c, d]) {
  const [rows, columns] = originalSize(), bound = (value, most) => Math.min(Math.max(value, 0), most);
  return [bound(Math.min(a, c), columns), bound(Math.min(b, d), rows), bound(Math.max(a, c), columns), bound(Math.max(b, d), rows)];
}
function keepInside([x0, y0, x1, y1]) {
  const [rows, columns] = originalSize(), dx = Math.max(0, -x0) + Math.min(0, columns - x1), dy = Math.max(0, -y0) + Math.min(0, rows - y1);
  return [x0 + dx, y0 + dy, x1 + dx, y1 + dy];
}

function click(panel, [x, y]) {
  const marks = marksOf(panel), sign = view.tool === 'yes' ? 1 : -1, reach = 8 / place(panel).scale * (window.devicePixelRatio || 1);
  const near = marks.clicks.findIndex(([a, b]) => Math.hypot(a - x, b - y) < reach);
  if (near >= 0) marks.clicks.splice(near, 1); else marks.clicks.push([Math.round(x * 10) / 10, Math.round(y * 10) / 10, sign]);
  draw(panel); save(panel); refresh(); showTeach();
}

function startMask(panel) {
  const marks = marksOf(panel);
  if (marks.mask) return;
  const [rows, columns] = originalSize(), share = Math.min(1, MASK / Math.max(rows, columns));
  marks.size = [Math.max(1, Math.round(rows * share)), Math.max(1, Math.round(columns * share))];
  marks.mask = new Uint8Array(marks.size[0] * marks.size[1]);
  // The hand begins where the model ended.
  const values = heatmap(panel.grid, panel.map, marks.size[1], marks.size[0]);
  for (let i = 0; i < values.length; i++) marks.mask[i] = values[i] > panel.limit ? 1 : 0;
}

function dab(panel, from, to) {
  const marks = marksOf(panel), [rows, columns] = marks.size, share = columns / originalSize()[1];
  const radius = view.brush / 2 * share * panel.canvas.width / panel.canvas.clientWidth / place(panel).scale;  // The size is one on the screen.
  const [x0, y0, x1, y1] = [from[0] * share, from[1] * share, to[0] * share, to[1] * share];
  const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(radius / 2, 1)));
  const value = view.tool === 'erase' ? 0 : 1;
  for (let step = 0; step <= steps; step++) {
    const cx = x0 + (x1 - x0) * step / steps, cy = y0 + (y1 - y0) * step / steps;
    for (let y = Math.max(0, Math.floor(cy - radius)); y <= Math.min(rows - 1, Math.ceil(cy + radius)); y++) {
      for (let x = Math.max(0, Math.floor(cx - radius)); x <= Math.min(columns - 1, Math.ceil(cx + radius)); x++) {
        if ((x + 0.5 - cx) ** 2 + (y + 0.5 - cy) ** 2 <= radius ** 2) marks.mask[y * columns + x] = value;
      }
    }
  }
  marks.shown = null;
}

function read(panel, point) {
  if (!panel.map || !panel.grid) return;
  const cell = inside(point) ? cellAt(panel.map, ...point) : -1;
  if (cell < 0) { $('reading').textContent = ''; return; }
  const parts = panel.map.names.map((name, i) => `${readable(name)} ${signed(panel.map.cosines[i * panel.grid.length + cell])}`).slice(0, 4);
  $('reading').textContent = `x ${Math.round(point[0])}, y ${Math.round(point[1])}: score ${signed(panel.grid[cell])}  (cosines: ${parts.join(', ')}${panel.map.names.length > 4 ? ' …' : ''})`;
}

function keyOnCanvas(panel, event) {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const [rows, columns] = originalSize();
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (steps) {
    panel.cursor ??= panel.answer?.peak ? [panel.answer.peak.x, panel.answer.peak.y] : [columns / 2, rows / 2];
    const size = Math.max(rows, columns) / (event.shiftKey ? 12 : 96);
    panel.cursor = [Math.min(Math.max(panel.cursor[0] + steps[0] * size, 0), columns - 1), Math.min(Math.max(panel.cursor[1] + steps[1] * size, 0), rows - 1)];
    if (panel.anchor) panel.drawing = orderBox([...panel.anchor, ...panel.cursor]);
    read(panel, panel.cursor); speak($('reading').textContent); draw(panel);
    event.preventDefault(); event.stopPropagation();
  } else if (event.key === 'Enter' && panel.cursor && panel.map) {
    event.preventDefault();
    if (view.tool === 'box') {
      if (panel.anchor) { const held = begin(panel, panel.anchor); held?.move(panel.cursor); held?.end(panel.cursor); panel.anchor = null; } else { panel.anchor = [...panel.cursor]; speak('first corner'); }
    } else { const held = begin(panel, panel.cursor); held?.end(panel.cursor); }
  } else if (event.key === 'Escape') { panel.anchor = null; panel.drawing = null; draw(panel); }
}

document.addEventListener('keydown', event => {
  const target = event.target, typing = target.matches('input:not([type="range"]):not([type="checkbox"]), select, textarea') || target.closest('dialog[open]');
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'z' && !typing) { event.preventDefault(); undo(); return; }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) { if (event.key === 'Escape' && typing) target.blur(); return; }
  if (event.key === '?') { $('help-box').showModal(); return; }
  if (event.key === '/') { event.preventDefault(); setMode('words'); $('target').focus(); $('target').select(); return; }
  if (event.key === 'ArrowLeft' && !target.matches('[type="range"]')) { step(-1); return; }
  if (event.key === 'ArrowRight' && !target.matches('[type="range"]')) { step(1); return; }
  if (!$('keys-on').checked) return;
  const key = event.key.toLowerCase();
  const verdict = { a: 'accept', x: 'reject', u: 'cannot_tell' }[key];
  const tool = { b: 'brush', e: 'erase', r: 'box', l: 'look', '+': 'yes', '-': 'no' }[key];
  if (verdict) judge(verdict);
  else if (tool) setTool(tool);
  else if (key === 'z') undo();
  else if (key === 'n') goNext();
  else if (key === 'm') { view.mapOn = !view.mapOn; drawAll(); }
  else if (key === '[' || key === ']') { $('size').value = Number($('size').value) + (key === ']' ? 4 : -4); view.brush = Number($('size').value); }
  else if (/^[1-9]$/.test(key)) document.querySelectorAll('#states button')[Number(key) - 1]?.click();
});

// --------------------------------------------------------------------------------------------------------------- answer

function showAnswer() {
  const panel = active(), answer = panel?.answer;
  const scale = panel ? scaleOf(panel) : { signed: true, reach: 0.5, low: -0.5 };
  drawBar($('bar'), scale);
  $('scale-low').textContent = scale.signed ? `− ${scale.reach} contrasts` : scale.low.toFixed(3);
  $('scale-middle').textContent = scale.signed ? '0' : '';
  $('scale-high').textContent = scale.signed ? `target + ${scale.reach}` : scale.reach.toFixed(3);
  if (document.activeElement !== $('reach')) $('reach').value = Number(scale.reach.toFixed(4));
  setThresholdLabel();
  for (const button of document.querySelectorAll('[data-verdict], #next, #undo')) button.disabled = !answer;
  if (!answer) {
    $('call').replaceChildren(panel?.problem ? 'No answer' : view.picture ? 'Ask something' : 'Add pictures first', element('small', { textContent: panel?.problem || 'Type what to find, and what it should be told apart from.' }));
    for (const id of ['states', 'ledger', 'regions', 'facts']) $(id).replaceChildren();
    for (const id of ['badge', 'because', 'narrowed', 'told', 'certificate-card', 'trust']) $(id).hidden = true;
    document.querySelector('[data-verdict="accept"] span').textContent = 'Right';
    $('standing').textContent = ''; showTeach(); showKeep();
    return;
  }
  showCall(panel); showLedger(answer); showRegions(panel); showCertificate(answer); showFacts(panel); showTeach(); showKeep();
  const words = answer.unknown_words;
  $('warning').hidden = !words.length;
  $('warning').textContent = words.length ? `The model ${view.info.model.name} has never seen ${words.map(word => `“${word}”`).join(', ')}: maps for these words mean little. Use another model (--model).` : '';
  const { head, odds } = headline(answer), said = [head, odds].filter(Boolean).join(', ');
  panel.canvas.setAttribute('aria-label', `${view.picture.title}. ${answer.question.words}: ${said}${answer.zero_shot ? '' : ', taught, not zero-shot'}. ${answer.peak ? `Highest point at x ${Math.round(answer.peak.x)}, y ${Math.round(answer.peak.y)}.` : 'Nothing found.'} Arrow keys move a cross, Enter applies the tool.`);
  speak(`${said}; ${answer.regions.length} region${answer.regions.length === 1 ? '' : 's'}`);
}

// What the map and its certificate are of, where the call is another state; empty where it is the call.
function otherThanCalled(answer) {
  const { subject, call, ledger } = answer, target = ledger[0]?.name ?? call.state;
  return subject.kind === 'part' || target === call.state ? '' : readable(subject.kind === 'presence' ? subject.character : target);
}

// What stands first, to the eye and to the ear. It agrees with the verdict: where that finds nothing of the target, odds among what was
// named do not say that it is there. The verdict is about the target alone: of a character another state may be called, which it does not
// speak against; of words it says that the odds compare with what is not there.
function headline(answer) {
  const { call } = answer, state = readable(call.state), other = otherThanCalled(answer);
  const unfound = answer.certificate && (!other || answer.subject.kind === 'words') && view.info.trust.unfound.includes(answer.certificate.verdict);
  const head = call.abstained ? `${state}? (no call)` : unfound ? `${state}? (${other && `${other}: `}${answer.certificate.verdict})` : answer.subject.kind === 'part' ? `${state} is here` : state;
  return { head, unfound, odds: call.probability === null ? '' : `${unfound ? 'odds among what was named' : 'probability'} ${percent(call.probability)}` };
}

function showCall(panel) {
  const { answer } = panel, { call } = answer, part = answer.subject.kind === 'part', marks = marksOf(panel);
  const { head, odds, unfound } = headline(answer);
  const notes = [call.probability === null ? `score ${signed(call.score)}` : odds, answer.peak ? `peak ${signed(answer.peak.score)} at ${Math.round(answer.peak.x)}, ${Math.round(answer.peak.y)}` : 'no peak', call.from === 'run' ? (view.info.run?.other_weights ? `from the run, made with other weights (${view.info.run.model.name} ${view.info.run.model.weights_hash}); the map is of ${view.info.model.name}` : 'from the run') : 'from the model now'];
  $('call').replaceChildren(head, element('small', { textContent: notes.join(' · ') }));
  const host = call.abstained_because === 'no_host' && call.host_probability !== null ? ` (${view.info.packs.find(pack => pack.name === answer.subject.pack)?.host ?? 'host'}: ${percent(call.host_probability)})` : '';
  const limit = /^low_/.test(call.abstained_because ?? '') && Number.isFinite(call.limit) ? ` (${Number(call.limit.toFixed(3))})` : '';
  $('because').hidden = !call.abstained;
  $('because').textContent = call.abstained ? `No call: ${view.info.reasons[call.abstained_because] ?? readable(call.abstained_because ?? '')}${host}${limit}.` : '';
  $('narrowed').textContent = unfound ? '' : narrowed(call);
  $('narrowed').hidden = !$('narrowed').textContent;
  $('badge').hidden = answer.zero_shot;
  $('badge').textContent = answer.zero_shot ? '' : `taught with ${answer.taught.positive + answer.taught.negative} clicks, not zero-shot`;
  $('told').hidden = !answer.place;
  $('told').textContent = !answer.place ? '' : answer.place.resolved ? `${answer.place.where}${answer.place.left_of ? ` is ${answer.place.whose}` : ''}. Told by how it lies: ${answer.place.reason}` : `Which one is the ${answer.place.where} one cannot be told: ${answer.place.reason}`;
  const states = part ? [] : call.states;
  $('states').replaceChildren(...states.map((state, index) => {
    const chosen = marks.current && (marks.current.verdict === 'state' ? marks.current.state === state : marks.current.verdict === 'accept' && call.state === state);
    const share = call.probabilities?.[state];
    return element('button', { type: 'button', className: state === call.state ? 'called' : '', 'aria-pressed': String(Boolean(chosen)), onclick: () => state === call.state ? judge('accept') : judge('state', state), title: `This state is right (${index + 1})` },
      readable(state), ' ', element('small', { textContent: share === undefined ? '' : percent(share) }));
  }));
  for (const button of document.querySelectorAll('[data-verdict]')) button.setAttribute('aria-pressed', String(marks.current?.verdict === button.dataset.verdict));
  // Where no call was made "right" would be read as agreement with that, and kept as the state that the model thought likeliest.
  const named = call.abstained ? part ? 'It is here' : `It is ${readable(call.state)}` : '';
  document.querySelector('[data-verdict="accept"] span').textContent = named || 'Right';
  const item = marks.current;
  const drawn = item ? [item.mask && 'region drawn', item.boxes.length && `${item.boxes.length} box${item.boxes.length > 1 ? 'es' : ''}`, item.clicks.length && `${item.clicks.length} click${item.clicks.length > 1 ? 's' : ''}`].filter(Boolean).join(', ') : '';
  $('standing').textContent = item ? `${item.person || 'Somebody'}: ${item.verdict === 'accept' && named ? part ? 'it is here' : `it is ${readable(item.state || item.called)}` : said(item)}${drawn ? ` (${drawn})` : ''}, ${new Date(item.at).toLocaleString()}` : 'Nobody has looked at this yet.';
  $('undo').disabled = !item;
}

// Several states that are likely together, where one alone is not; where they are most of all, the others are the shorter thing to say.
function narrowed(call) {
  if (call.likely.length < 2) return '';
  const out = call.states.filter(state => !call.likely.includes(state)), most = call.likely.length > out.length + 1;
  const names = (most ? out : call.likely).map(readable), either = names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;
  return `${most ? 'Not' : 'Narrowed down to'} ${either}: ${percent(call.likely_probability)}`;
}

function showLedger(answer) {
  const rows = answer.ledger, largest = Math.max(...rows.map(row => Math.abs(row.value ?? 0)), 1e-6);
  const bar = value => {
    const share = 50 * Math.abs(value) / largest, svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    svg.setAttribute('viewBox', '0 0 100 8'); svg.setAttribute('preserveAspectRatio', 'none'); svg.setAttribute('aria-hidden', 'true');
    const rect = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
    Object.entries({ x: value < 0 ? 50 - share : 50, y: 0, width: Math.max(share, 0.4), height: 8, fill: value < 0 ? 'var(--bar-blue)' : 'var(--bar-red)' }).forEach(([key, own]) => rect.setAttribute(key, own));
    svg.append(rect);
    return svg;
  };
  const kind = { target: '', contrast: 'not: ', around: 'around: ', taught: 'taught: ' };
  const lines = rows.map(row => element('div', { className: 'line' }, element('span', { className: 'name', textContent: kind[row.role] + readable(row.name), title: row.name }), element('span', { className: 'value', textContent: signed(row.value) }), bar(row.value ?? 0)));
  lines.push(element('div', { className: 'line sum' }, element('span', { className: 'name', textContent: 'together' }), element('span', { className: 'value', textContent: signed(rows.reduce((sum, row) => sum + (row.value ?? 0), 0)) })));
  $('ledger').replaceChildren(...lines);
}

function showRegions(panel) {
  const { answer } = panel;
  if (!answer.regions.length) { $('regions').replaceChildren(element('p', { className: 'small', textContent: 'Nothing is above the threshold.' })); return; }
  const body = element('tbody');
  answer.regions.forEach((region, index) => {
    const show = on => { panel.region = on ? region : null; draw(panel); };
    const cells = [signed(region.peak_score), region.area.toLocaleString(), region.measures.length?.toFixed(0), region.measures.width?.toFixed(0), `${region.measures.orientation?.toFixed(0)}°`];
    const row = element('tr', {}, element('td', {}, element('button', { type: 'button', className: 'quiet', textContent: String(index + 1), 'aria-label': `Region ${index + 1}: show it`, onfocus: () => show(true), onblur: () => show(false) })), ...cells.map(text => element('td', { textContent: text })));
    row.onmouseenter = () => show(true); row.onmouseleave = () => show(false);
    body.append(row);
  });
  const head = element('thead', {}, element('tr', {}, ...['', 'peak', 'pixels', 'length', 'width', 'angle'].map(text => element('th', { textContent: text, scope: 'col' }))));
  $('regions').replaceChildren(element('table', {}, element('caption', { className: 'hidden', textContent: 'Regions above the threshold; lengths in pixels of the original' }), head, body));
}

function facts(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([name, value]) => [element('dt', { textContent: name }), element('dd', { textContent: String(value) })]));
}
function showCertificate(answer) {
  const { certificate } = answer, other = otherThanCalled(answer);
  $('certificate-card').hidden = !certificate;
  $('trust').hidden = !certificate;
  if (!certificate) return;
  $('trust').dataset.trusted = String(certificate.verdict === view.info.trust.trusted);
  $('trust').title = view.info.trust.verdicts[certificate.verdict];
  $('trust').replaceChildren(element('b', { textContent: certificate.verdict }), other && `${other}: `, certificate.reason);
  const told = value => typeof value === 'number' ? Number(value.toPrecision(3)) : value === true ? 'yes' : value === false ? 'no' : value;
  const { evidence = {}, verdict, reason, ...rest } = certificate;
  facts($('certificate'), [...Object.entries(rest), ...Object.entries(evidence)].filter(([, value]) => value !== null && value !== '' && typeof value !== 'object').map(([name, value]) => [readable(name), told(value)]));
}
function showFacts(panel) {
  const { answer } = panel, made = answer.provenance;
  facts($('facts'), [['picture', `${answer.picture.title} (${answer.picture.width} × ${answer.picture.height}${answer.picture.specimen ? `, at ${answer.picture.specimen.box.slice(0, 2).join(', ')} of the whole` : ''})`], ...(answer.picture.notes.length ? [['read as', answer.picture.notes.join('; ')]] : []), ['question', answer.question.words], ['phrases', answer.question.phrases.join(' | ')],
    ['model', `${made.model} (${made.weights_hash.slice(0, 8)})`], ['attention', made.attention], ['resize', `${made.resize}, views ${made.views}`], ['contrasts', `gamma ${answer.question.gamma}, ${answer.question.weighting}`],
    ['threshold', `${answer.question.threshold} = ${signed(answer.threshold.value)}`], ['answered in', `${answer.timing.milliseconds} ms${answer.timing.encoded ? ' after encoding' : ''}; ${panel.took.toFixed(0)} ms here`], ['version', made.version]]);
}
function showKeep() {
  const { info } = view;
  $('keep-text').textContent = `Saved in ${info.corrections} as you work. ${info.run ? 'Exports carry your corrections.' : 'For coco, CVAT, Darwin Core … serve the folder of an annotation run.'} “labels” is what concept-cam calibrate reads.`;
}

// ---------------------------------------------------------------------------------------------------------- corrections

let saving = Promise.resolve();
let sending = false;
let retry;
let unsent = null;
const pending = () => sending || unsent?.held.size > 0;

function showSaved(text, waiting = false) { $('saved').textContent = text; $('saved').classList.toggle('waiting', waiting); }

function record(panel) {
  const marks = marksOf(panel), { call } = panel.answer;
  return {
    id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`,
    picture: view.picture.id,
    question: { ...plain(panel.question), clicks: marks.clicks },  // What is left out stays as it was: that there are none has to be said.
    verdict: marks.verdict,
    state: marks.state,
    called: { state: call.state, probability: call.probability, score: call.score, abstained_because: call.abstained_because },
    mask: marks.mask ? { size: marks.size, runs: runs(marks.mask) } : null,
    boxes: marks.boxes.map(box => box.map(Math.round)),
    person: $('person').value.trim(),
  };
}

function save(panel) {
  if (!panel?.answer) return Promise.resolve();
  unsent.add({ correction: record(panel), mark: markKey(panel), seen: marksOf(panel).seen });
  showSaved('saving …', true);
  return flush();
}

// Corrections are sent one after the other, the oldest first, each until the server has it; it knows the ids, so that nothing is written
// twice.
function flush() {
  clearTimeout(retry);
  saving = saving.then(sendAll);
  return saving;
}

async function sendAll() {
  let item;
  let left = false;
  sending = true;
  try {
    while ((item = unsent.all()[0])) {
      const { correction, mark } = item;
      try {
        const answer = await api.correct({ ...correction, seen: item.seen });
        unsent.remove(correction.id);
        // What this tab said after that, it said knowing it.
        for (const later of unsent.of(mark)) unsent.add({ ...later, seen: answer.correction.number });
        written(mark, answer.correction, answer.correction.number);
        left ||= item.tab !== unsent.tab;
      } catch (error) {
        if (error.code === 'conflict') { await conflict(error, item); continue; }
        if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 401) { unsent.remove(correction.id); say(`Not saved: ${error.message}`, true); continue; }
        showSaved('not saved yet', true);
        say(`Not saved yet: ${error.message} It is kept in this browser and sent again.`, true);
        retry = setTimeout(flush, 3000);
        return;
      }
    }
  } finally { sending = false; }
  if ($('saved').textContent === 'not saved yet') say('');
  if ($('saved').textContent) showSaved('all saved');
  if (left) { showSaved('all saved'); poll(true); }
}

// Notes what now counts for a mark: here, in the list of the picture that is open, and in the strip.
function written(mark, correction, seen) {
  const marks = view.marks.get(mark), panel = active();
  if (marks) { marks.current = correction; marks.seen = Math.max(seen, marks.seen); }
  stand(mark, correction);
  const picture = view.pictures.find(item => item.id === mark.split('|')[0]);
  if (picture && picture.id !== view.picture?.id && saysSomething(correction) && !picture.corrections) { picture.corrections = 1; markDone(picture); }
  if (panel?.answer && markKey(panel) === mark) { showCall(panel); askProgress(); }
}

function stand(mark, correction) {
  if (mark.split('|')[0] !== view.picture?.id) return;
  const subject = mark.slice(mark.indexOf('|') + 1);
  view.standing = view.standing.filter(item => JSON.stringify([item.pack, item.character, item.part]) !== subject);
  if (correction) view.standing.push(correction);
  recount();
}

// Clicks alone say nothing of a call, nor does what was cleared: no tick then, as the server counts.
const saysSomething = item => Boolean(item && (item.verdict || item.mask || item.boxes.length));
function recount() {
  const picture = view.pictures.find(item => item.id === view.picture?.id);
  if (!picture) return;
  picture.corrections = view.standing.filter(saysSomething).length;
  markDone(picture);
}

async function conflict(error, item) {
  const theirs = error.body.current, box = $('conflict-box'), { correction, mark } = item;
  $('conflict-text').textContent = `${error.message} Theirs: ${theirs ? said(theirs) : 'taken back'}; yours: ${said(correction)}.`;
  unsent.hold(correction.id);
  box.returnValue = 'theirs';
  box.showModal();
  await new Promise(done => box.addEventListener('close', done, { once: true }));
  if (box.returnValue === 'mine') { unsent.add({ ...item, seen: error.body.last }); return; }
  unsent.remove(correction.id);
  if (view.marks.has(mark)) applyCorrection(view.marks.get(mark), theirs, error.body.last);
  stand(mark, theirs);
  const panel = active();
  drawAll();
  if (panel?.answer && markKey(panel) === mark) showCall(panel);
}

function judge(verdict, state = '') {
  const panel = active();
  if (!panel?.answer) return;
  Object.assign(marksOf(panel), { verdict, state });
  speak(said({ verdict, state }));
  save(panel);
}

function undo() {
  const panel = active();
  if (!panel?.answer) return;
  const marks = marksOf(panel), mark = markKey(panel);
  saving = saving.then(async () => {
    const waiting = unsent.of(mark).at(-1);
    try {
      if (waiting) {  // The server has not got it: it need not know.
        unsent.remove(waiting.correction.id);
        const before = unsent.of(mark).at(-1)?.correction;
        applyCorrection(marks, marks.current, marks.seen, before);
        if (!unsent.all().length) { showSaved(''); say(''); }
      } else if (marks.current) {
        const answer = await api.undo(marks.current.id, $('person').value.trim());
        applyCorrection(marks, answer.current, answer.last);
        stand(mark, answer.current);
      } else return;
      speak('taken back'); draw(panel); refresh(); showAnswer(); askProgress();
    } catch (error) { say(error.message); }
  });
}

async function poll(force = false) {
  if (!view.picture || document.hidden && !force || pending()) return;
  const picture = view.picture;
  try {
    const found = await api.corrections(picture.id);
    for (const panel of view.panels) if (panel.again) { panel.again = false; ask(panel); }
    if (picture !== view.picture || pending() || found.last === view.last && !force) return;
    view.last = found.last; view.standing = found.corrections;
    recount();
    for (const panel of view.panels) if (takeStanding(panel)) { draw(panel); if (panel === active()) showCall(panel); }
  } catch { /* the next try tells */ }
}

// ------------------------------------------------------------------------------------------------------- next, progress

async function askProgress() {
  const panel = active();
  if (!panel?.answer) return;
  try {
    const { progress } = await api.next({ ...plain(panel.question), wanted: 0 });
    const all = progress.right + progress.needed;
    $('progress').max = Math.max(all, 1); $('progress').value = progress.right;
    $('progress-text').textContent = `${progress.reviewed} looked at${progress.cannot_tell ? ` (${progress.cannot_tell} cannot be told)` : ''}${progress.before_limits ? ` (${progress.before_limits} without the host or the part: no limit decides about those)` : ''}${progress.without_call ? ` (${progress.without_call} that do not say what had been called)` : ''}; ${progress.needed ? `${progress.needed} more right calls, at least, for a limit at ${100 * progress.target} %` : `enough for a limit at ${100 * progress.target} %`}`;
    $('limits').hidden = progress.labelled < 15;
    if (progress.labelled >= 15 && progress.labelled >= view.offered + 10) { view.offered = progress.labelled; say('Enough was looked at for new limits: see what they change, under Call.'); }
  } catch { /* progress is a courtesy */ }
}

async function goNext() {
  const panel = active();
  if (!panel?.question) return;
  await saving;
  try {
    const { next } = await api.next({ ...plain(panel.question), wanted: 1 });
    if (!next.length) { say('Everything was looked at for this question.'); return; }
    let index = view.pictures.findIndex(picture => picture.id === next[0].id);
    if (index < 0) { view.pictures.push({ ...next[0], corrections: 0 }); index = view.pictures.length - 1; buildStrip(); }
    await select(index);
  } catch (error) { say(error.message); }
}

async function showLimits() {
  try {
    const found = await api.limits();
    $('limits-text').textContent = `Calls at or above its limit are right in ${100 * found.target} % of cases or more, with ${100 * found.confidence} % confidence. A limit “none” makes no calls.${found.run ? ' The last columns count what would change in this run.' : ''}${found.other_weights ? ` They hold for calls of ${found.model}; ${found.other_weights} corrected calls of other weights are left out.` : ''}${found.before_limits ? ` ${found.before_limits} corrected calls without the host or of an absent part are left out: no limit decides about those.` : ''}`;
    const columns = ['character', 'limit', 'labels', 'kept', 'right', 'expected', ...(found.run ? ['no longer', 'newly'] : [])];
    const head = element('thead', {}, element('tr', {}, ...columns.map(text => element('th', { textContent: text, scope: 'col' }))));
    const body = element('tbody', {}, ...found.limits.map(row => element('tr', {}, ...[row.name === '*' ? 'all together' : row.name === '* parts' ? 'all parts' : readable(row.name), row.value === null ? 'none' : row.value.toFixed(3), row.labelled, row.kept, percent(row.accuracy), row.expected_accuracy === null ? '–' : percent(row.expected_accuracy), ...(found.run ? [row.no_longer_called, row.newly_called] : [])].map(text => element('td', { textContent: text })))));
    $('limits-table').replaceChildren(head, body);
    $('limits-done').textContent = '';
    $('limits-box').showModal();
  } catch (error) { say(error.message); }
}

// ----------------------------------------------------------------------------------------------------------------- teach

function clicksOf(panel) {
  if (!panel?.answer) return [];
  const suffix = markKey(panel).slice(markKey(panel).indexOf('|'));
  return [...view.marks].filter(([key, marks]) => key.endsWith(suffix) && marks.clicks.length).map(([key, marks]) => ({ picture: key.split('|')[0], clicks: marks.clicks }));
}

function showTeach() {
  const examples = clicksOf(active()), count = sign => examples.reduce((sum, item) => sum + item.clicks.filter(click => click[2] === sign).length, 0);
  const least = view.info.least_clicks, words = active()?.question.mode === 'words';
  $('teach').hidden = count(1) < least || !words;
  $('teach-text').textContent = !words ? 'Ask in words to teach a concept.' : count(1) < least
    ? `${count(1)} of ${least} “this” clicks, ${count(-1)} “not this”. From ${least} on their mean can be mixed with the words; nothing is trained.`
    : `${count(1)} “this” and ${count(-1)} “not this” clicks on ${examples.length} picture${examples.length > 1 ? 's' : ''}. What is mixed in is marked: taught, not zero-shot.`;
  $('taught-row').hidden = !view.info.taught.length;
  $('taught').replaceChildren(element('option', { value: '', textContent: 'words alone' }), ...view.info.taught.map(item => element('option', { value: item.name, textContent: item.name, selected: item.name === view.taught })));
  $('mix-row').hidden = !view.taught;
}

$('teach').addEventListener('submit', async event => {
  event.preventDefault();
  const panel = active();
  try {
    await saving;
    const made = await api.teach({ name: $('teach-name').value, target: panel.question.target, contrasts: panel.question.contrasts, examples: clicksOf(panel), mix: view.mix, person: $('person').value.trim() });
    view.info = await api.state();
    setTaught(made.name);
    say(`“${made.name}” was taught from ${made.positive + made.negative} clicks and kept in the user pack taught/taught.yaml.`);
  } catch (error) { say(error.message); }
});
function setTaught(name) {
  view.taught = name;
  showTeach(); remember();
  for (const panel of view.panels) if (panel.answer) ask(panel, true);
}
$('taught').addEventListener('change', event => setTaught(event.target.value));

// -------------------------------------------------------------------------------------------------------------- pictures

let selecting = 0;
async function select(index) {
  if (index < 0 || index >= view.pictures.length) return;
  view.at = index;
  view.picture = view.pictures[index];
  await showPicture();
}
// The picture that is chosen need not stand in the strip: a search may have left it out.
async function showPicture() {
  const mine = ++selecting;
  for (const panel of view.panels) { panel.controller?.abort(); panel.answer = null; panel.map = null; panel.region = null; panel.problem = ''; panel.cursor = null; }
  markCurrent();
  const image = new Image();
  image.decoding = 'async';
  image.onload = () => { if (mine === selecting) { view.image = image; setAspect(); drawAll(); } };
  image.onerror = () => { if (mine === selecting) { view.image = null; drawAll(); } };
  image.src = api.image(view.picture.id, 1600, view.written.get(view.picture.id));
  view.image = image;
  $('reading').textContent = '';
  remember(); showAnswer();
  try {
    const found = await api.corrections(view.picture.id);
    if (mine !== selecting) return;
    view.standing = found.corrections; view.last = found.last;
    recount();
  } catch (error) { say(error.message); }
  await Promise.all(view.panels.map(panel => ask(panel)));
  if (mine === selecting) askProgress();
}
function setAspect() { if (view.image) document.documentElement.style.setProperty('--aspect', `${view.image.naturalWidth} / ${view.image.naturalHeight}`); }
function step(by) { if (view.pictures.length) select((view.at + by + view.pictures.length) % view.pictures.length); }

function markCurrent() {
  document.querySelectorAll('#strip button').forEach((button, i) => {
    button.setAttribute('aria-current', String(i === view.at));
    if (i === view.at) button.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  });
  $('place').textContent = view.pictures.length ? `${view.at + 1} of ${view.total} · ${view.picture?.title.replace(/^dropped:[0-9a-f]+\//, '') ?? ''}` : 'no picture';
}

function buildStrip() {
  $('strip').replaceChildren(...view.pictures.map((picture, index) => {
    const button = element('button', { type: 'button', title: picture.title, 'aria-label': `${picture.title}${picture.corrections ? ', corrected' : ''}`, onclick: () => select(index) },
      element('img', { src: api.image(picture.id, 160, view.written.get(picture.id)), alt: '', loading: 'lazy', decoding: 'async' }));
    if (picture.corrections) button.append(tick());
    return element('li', {}, button);
  }));
  markCurrent();
}
const tick = () => element('span', { className: 'done', textContent: '✓', 'aria-hidden': 'true' });

// The strip is not built anew for a tick: who goes through it with the keyboard would lose the place.
function markDone(picture) {
  const button = document.querySelectorAll('#strip button')[view.pictures.indexOf(picture)];
  if (!button || Boolean(button.querySelector('.done')) === Boolean(picture.corrections)) return;
  if (picture.corrections) button.append(tick()); else button.querySelector('.done').remove();
  button.setAttribute('aria-label', `${picture.title}${picture.corrections ? ', corrected' : ''}`);
}

async function loadPictures(more = false) {
  // Pictures that came into the list by an address or by "next" are no part of what was fetched in order.
  const found = await api.pictures(more ? view.fetched : 0, 200, view.search);
  view.total = found.total;
  view.fetched = found.offset + found.pictures.length;
  view.pictures = more ? [...view.pictures, ...found.pictures.filter(item => !view.pictures.some(own => own.id === item.id))] : found.pictures;
  view.at = view.pictures.findIndex(picture => picture.id === view.picture?.id);
  buildStrip();
}
$('strip').addEventListener('scroll', async event => {
  const strip = event.target;
  if (view.loading || view.fetched >= view.total || strip.scrollLeft + strip.clientWidth < strip.scrollWidth - 600) return;
  view.loading = 1;
  try { await loadPictures(true); } catch (error) { say(error.message); } finally { view.loading = 0; }
});

async function addFiles(files) {
  const refused = [];
  for (const file of files) {
    if (file.size > view.info.upload_bytes) { refused.push(`${file.name}: the file is larger than ${Math.round(view.info.upload_bytes / 2 ** 20)} MB.`); continue; }
    try {
      const made = await api.upload(file);
      view.pictures = [made, ...view.pictures.filter(item => item.id !== made.id)];
      view.total = Math.max(view.total, view.pictures.length);
      buildStrip(); await select(0);
    } catch (error) { refused.push(`${file.name}: ${error.message}`); }
  }
  // Said when all have had their turn: each message would take the place of the one before.
  if (refused.length > 1) say(`${refused.length} of ${files.length} files were not taken. ${refused.join(' ')}`); else if (refused.length) say(refused[0]);
}

// --------------------------------------------------------------------------------------------------------- question bar

function setMode(mode) {
  const words = mode === 'words';
  $('mode-words').setAttribute('aria-pressed', String(words)); $('mode-pack').setAttribute('aria-pressed', String(!words));
  $('words').hidden = !words; $('pack-row').hidden = words;
}

function fillChips(contrasts) {
  $('contrasts').replaceChildren(...contrasts.map(text => element('li', {}, element('span', { textContent: text }), element('button', { type: 'button', textContent: '×', 'aria-label': `Remove the contrast ${text}`, onclick: () => submitWords(contrasts.filter(other => other !== text)) }))));
}

function fillQuestion() {
  const question = active().question;
  setMode(question.mode);
  if (question.mode === 'words') { $('target').value = question.target; fillChips(question.contrasts); } else fillPack(question);
}

function submitWords(contrasts) {
  const extra = $('contrast').value.trim(), old = active().question;
  const list = contrasts ?? (old.mode === 'words' ? [...old.contrasts] : []);
  if (extra && contrasts === undefined && !list.includes(extra)) list.push(extra);
  if (contrasts === undefined) $('contrast').value = '';
  const question = { mode: 'words', target: $('target').value.trim(), contrasts: list };
  fillChips(list);
  if (question.target) setQuestion(question); else active().question = question;
}

function characters() {
  const run = view.info.run?.characters, pack = view.info.packs.find(item => item.name === $('pack').value);
  if (!pack) return [];
  const inRun = new Set((run ?? []).filter(item => item.pack === pack.name).map(item => item.character));
  return [...pack.characters].sort((a, b) => inRun.has(b.name) - inRun.has(a.name)).map(item => ({ ...item, inRun: inRun.has(item.name) }));
}
function fillPack(question) {
  const options = (select_, list, chosen) => { select_.replaceChildren(...list.map(([value, text]) => element('option', { value, textContent: text, selected: value === chosen }))); };
  options($('pack'), view.info.packs.map(pack => [pack.name, pack.title]), question.pack);
  const list = characters(), character = list.find(item => item.name === question.character) ?? list[0];
  options($('character'), list.map(item => [item.name, readable(item.name) + (item.inRun ? ' · in the run' : '')]), character.name);
  const states = character.states.map(state => [state.name, readable(state.name)]);
  options($('state'), character.kind === 'part' ? states : [['', 'the likeliest'], ...states.filter(([name]) => !(character.kind === 'presence' && name === 'absent'))], question.state);
}
function packQuestion() {
  const list = characters(), character = list.find(item => item.name === $('character').value) ?? list[0];
  const known = character.states.some(state => state.name === $('state').value);
  return { mode: 'pack', pack: $('pack').value, character: character.name, state: known ? $('state').value : character.kind === 'part' ? character.states[0].name : '' };
}

$('words').addEventListener('submit', event => { event.preventDefault(); submitWords(); });
$('contrast').addEventListener('keydown', event => {
  if (event.key === 'Enter' || event.key === ',') { event.preventDefault(); submitWords(); }
  if (event.key === 'Backspace' && !event.target.value && active().question.contrasts?.length) submitWords(active().question.contrasts.slice(0, -1));
});
$('mode-words').addEventListener('click', () => { setMode('words'); $('target').focus(); });
$('mode-pack').addEventListener('click', () => {
  setMode('pack');
  const run = view.info.run?.characters?.[0];
  const question = active().question.mode === 'pack' ? active().question : run ? { mode: 'pack', pack: run.pack, character: run.character, state: run.parts[0] ?? '' } : { mode: 'pack', pack: view.info.preferred[0] ?? view.info.packs.find(pack => pack.name === 'fish')?.name ?? view.info.packs[0].name, character: '', state: '' };
  fillPack(question); setQuestion(packQuestion());
});
for (const id of ['pack', 'character', 'state']) {
  $(id).addEventListener('change', () => { const question = packQuestion(); if (id !== 'state') { question.state = ''; fillPack(question); } setQuestion(packQuestion()); });
}
$('add').addEventListener('click', () => {
  if (view.panels.length >= MOST_PANELS) { say(`At most ${MOST_PANELS} questions side by side.`); return; }
  const old = active().question;
  view.panels.push({ question: old.mode === 'words' ? { mode: 'words', target: '', contrasts: [] } : { ...old } });
  view.active = view.panels.length - 1;
  buildStage(); fillQuestion(); showAnswer();
  if (old.mode === 'words') $('target').focus(); else ask(active());
});

// ------------------------------------------------------------------------------------------------------------- controls

function setTool(tool) {
  view.tool = tool;
  for (const button of document.querySelectorAll('[data-tool]')) button.setAttribute('aria-pressed', String(button.dataset.tool === tool));
}
function setThresholdLabel() {
  $('threshold-out').textContent = typeof view.threshold === 'number' ? signed(view.threshold) : view.threshold === 'half-max' ? 'half of the peak' : view.threshold;
  $('half').hidden = view.threshold === 'half-max';
  const panel = active(), scale = panel ? scaleOf(panel) : { reach: 1, low: -1, signed: true };
  $('threshold').min = scale.signed ? 0 : scale.low; $('threshold').max = scale.reach; $('threshold').step = scale.reach / 200;
  const value = typeof view.threshold === 'number' ? view.threshold : panel?.answer?.threshold.value;
  if (document.activeElement !== $('threshold') && Number.isFinite(value)) $('threshold').value = value;
}
document.querySelector('.tools').addEventListener('click', event => { const tool = event.target.closest('[data-tool]')?.dataset.tool; if (tool) setTool(tool); });
document.querySelector('.verdicts').addEventListener('click', event => { const verdict = event.target.closest('[data-verdict]')?.dataset.verdict; if (verdict) judge(verdict); });
$('undo').addEventListener('click', undo);
$('next').addEventListener('click', goNext);
$('limits').addEventListener('click', showLimits);
$('limits-keep').addEventListener('click', async () => { try { const made = await api.keepLimits(); $('limits-done').textContent = `Written: ${made.file}, beside the corrections. Use it with  annotate --calibration.`; } catch (error) { $('limits-done').textContent = error.message; } });
$('clear').addEventListener('click', () => {
  const panel = active(), marks = panel?.answer && marksOf(panel);
  if (!marks || !(marks.mask || marks.boxes.length || marks.clicks.length)) return;
  Object.assign(marks, { mask: null, size: null, boxes: [], clicks: [], shown: null });
  draw(panel); save(panel); refresh();
});
$('size').addEventListener('input', event => { view.brush = Number(event.target.value); });
$('gamma').addEventListener('input', event => { view.gamma = Number(event.target.value); $('gamma-out').textContent = view.gamma.toFixed(2); drawAll(); refresh(); remember(); });
$('threshold').addEventListener('input', event => { view.threshold = Number(event.target.value); setThresholdLabel(); drawAll(); refresh(); remember(); });
const halfOfThePeak = () => { view.threshold = 'half-max'; $('threshold').focus(); setThresholdLabel(); drawAll(); refresh(); remember(); };
$('threshold').addEventListener('dblclick', halfOfThePeak);
$('half').addEventListener('click', halfOfThePeak);
$('opacity').addEventListener('input', event => { view.opacity = Number(event.target.value) / 100; $('opacity-out').textContent = `${event.target.value} %`; drawAll(); remember(); });
$('mix').addEventListener('input', event => { view.mix = Number(event.target.value) / 100; $('mix-out').textContent = `${event.target.value} %`; drawAll(); refresh(); remember(); });
$('reach').addEventListener('change', event => {
  const value = Number(event.target.value);
  if (!(value > 0)) return;
  const scale = scaleOf(active());
  view.scales.set(scaleKey(active().question), { ...scale, reach: value, low: scale.signed ? -value : Math.min(scale.low, value - 0.001) });
  drawAll(); showAnswer(); remember();
});
$('fit').addEventListener('click', () => { if (active()?.map) { fitScale(active()); drawAll(); showAnswer(); remember(); } });
$('previous').addEventListener('click', () => step(-1));
$('following').addEventListener('click', () => step(1));
let searchTimer;
$('search').addEventListener('input', event => { clearTimeout(searchTimer); searchTimer = setTimeout(() => { view.search = event.target.value.trim(); loadPictures().catch(error => say(error.message)); }, 250); });
$('files').addEventListener('change', event => { addFiles([...event.target.files]); event.target.value = ''; });
for (const name of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(name, event => {
    if (!event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    document.body.classList.toggle('dragging', name === 'dragover');
    if (name === 'drop') addFiles([...event.dataTransfer.files]);
  });
}
document.addEventListener('paste', event => { const files = [...event.clipboardData.files].filter(file => file.type.startsWith('image/')); if (files.length) addFiles(files); });
$('help').addEventListener('click', () => $('help-box').showModal());
$('theme').addEventListener('click', () => {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  document.documentElement.dataset.theme = dark ? 'light' : 'dark';
  store('theme', document.documentElement.dataset.theme);
});
$('person').addEventListener('change', event => store('person', event.target.value.trim()));
$('keys-on').addEventListener('change', event => store('keys', event.target.checked ? 'on' : 'off'));
$('export').addEventListener('submit', async event => {
  event.preventDefault();
  const button = event.target.querySelector('button');
  button.disabled = true;
  try {
    await saving;
    const { name, content } = await api.export($('format').value), link = element('a', { href: URL.createObjectURL(content), download: name });
    document.body.append(link); link.click(); link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    say(`${name} was handed to the browser to save.`);
  } catch (error) { say(`No file: ${error.message}`, true); }
  button.disabled = false;
});
$('share').addEventListener('click', async () => {
  remember();
  try { await navigator.clipboard.writeText(location.href); say('The address of this question was copied.'); } catch { say(location.href, true); }
});
document.addEventListener('visibilitychange', () => poll());
window.addEventListener('hashchange', () => { if (location.hash.slice(1) !== lastHash) start(); });
window.addEventListener('beforeunload', event => { if (pending()) event.preventDefault(); });

// -------------------------------------------------------------------------------------------------------------- address

let lastHash = '';
function remember() {
  const found = new URLSearchParams();
  if (view.picture) found.set('p', view.picture.title);
  for (const { question } of view.panels) {
    if (question.mode === 'pack') found.append('q', `${question.pack}:${question.character}${question.state ? `=${question.state}` : ''}`);
    else if (question.target) found.append('q', JSON.stringify([question.target, ...question.contrasts]));
  }
  if (view.active) found.set('a', view.active);
  if (view.gamma !== view.info.settings.gamma) found.set('g', view.gamma);
  if (view.threshold !== 'half-max') found.set('t', view.threshold);
  if (view.opacity !== 0.7) found.set('o', view.opacity);
  if (view.taught) { found.set('taught', view.taught); found.set('mix', view.mix); }
  const scale = active() && view.scales.get(scaleKey(active().question));
  if (scale?.signed) found.set('s', scale.reach);
  lastHash = found.toString();
  history.replaceState(null, '', `#${lastHash}`);
}

// Returns the picture that the address names, and sentences on what else it names that is not here.
function recall() {
  const lost = [];
  const found = new URLSearchParams(location.hash.slice(1)), number_ = (name, low, high, otherwise) => { const value = Number(found.get(name)); return found.has(name) && value >= low && value <= high ? value : otherwise; };
  const questions = found.getAll('q').slice(0, MOST_PANELS).map(text => {
    try { const [target, ...contrasts] = JSON.parse(text).map(String); return { mode: 'words', target, contrasts }; } catch { /* a pack's */ }
    const [head, state = ''] = text.split('='), [pack, character] = head.split(':');
    const known = view.info.packs.find(item => item.name === pack)?.characters.find(item => item.name === character);
    if (!known) lost.push(`No pack here has the character ${text} that the address asks for: start the server with its pack (--traits).`);
    return known ? { mode: 'pack', pack, character, state } : null;
  }).filter(Boolean);
  view.gamma = number_('g', 0, 2, view.info.settings.gamma);
  view.threshold = found.has('t') ? Number.isFinite(Number(found.get('t'))) ? Number(found.get('t')) : view.info.thresholds.includes(found.get('t')) ? found.get('t') : 'half-max' : 'half-max';
  view.opacity = number_('o', 0, 1, 0.7);
  view.mix = number_('mix', 0, 1, 0.5);
  view.taught = view.info.taught.some(item => item.name === found.get('taught')) ? found.get('taught') : '';
  if (found.get('taught') && !view.taught) lost.push(`“${found.get('taught')}” was not taught here: the words are asked alone.`);
  const run = view.info.run?.characters?.[0];
  const first = run ? { mode: 'pack', pack: run.pack, character: run.character, state: run.parts[0] ?? '' } : { mode: 'words', target: '', contrasts: [] };
  view.panels.forEach(panel => panel.controller?.abort());
  view.panels = (questions.length ? questions : [first]).map(question => ({ question }));
  view.active = Math.min(number_('a', 0, MOST_PANELS, 0), view.panels.length - 1);
  const reach = number_('s', 0.001, 10, 0);
  if (reach) view.scales.set(scaleKey(active().question), { signed: true, reach, low: -reach });
  $('gamma').value = view.gamma; $('gamma-out').textContent = view.gamma.toFixed(2);
  $('opacity').value = 100 * view.opacity; $('opacity-out').textContent = `${Math.round(100 * view.opacity)} %`;
  $('mix').value = 100 * view.mix; $('mix-out').textContent = `${Math.round(100 * view.mix)} %`;
  return [found.get('p'), lost];
}

async function start() {
  const [wanted, lost] = recall();
  buildStage(); fillQuestion();
  let index = view.pictures.findIndex(picture => picture.title === wanted);
  if (index < 0 && wanted) {
    const found = (await api.titled(wanted)).pictures[0];
    if (found) { view.pictures.unshift(found); buildStrip(); index = 0; } else lost.push(`The picture ${wanted} is not here.`);
  }
  if (lost.length) say(lost.join(' '));
  showAnswer();
  if (view.pictures.length) await select(Math.max(index, 0));
  else markCurrent();
  document.documentElement.dataset.ready = 'yes';
}

async function main() {
  const theme = store('theme');
  if (theme) document.documentElement.dataset.theme = theme;
  $('person').value = store('person') ?? '';
  $('keys-on').checked = store('keys') !== 'off';
  try {
    view.info = await api.state();
    unsent = new Unsent(view.info.identity);
    $('about').textContent = `${view.info.title} · ${view.info.pictures} pictures (${view.info.kind}) · model ${view.info.model.name}`;
    document.title = `${view.info.title} – concept-cam`;
    $('format').replaceChildren(...view.info.exports.map(name => element('option', { value: name, textContent: name })));
    await loadPictures();
    await start();
    if (unsent.all().length) flush();
    setInterval(() => { if (!sending && unsent.all().length) flush(); else poll(); }, 4000);
    if (!active().question.target && active().question.mode === 'words') $('target').focus();
  } catch (error) { say(error.message, true); console.warn(error); }
}

main();
export { view };
