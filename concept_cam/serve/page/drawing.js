// From grid maps to colours on a canvas. The same interpolation (cubic between cell centres) and the same signs as the package's own overlays.

export function floats(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

// s = f.t+ - gamma sum_j pi_j f.t_j, mixed with the taught direction where there is one.
export function scores(map, gamma, mix) {
  const count = map.grid[0] * map.grid[1];
  const found = new Float32Array(count);
  for (let i = 0; i < count; i++) found[i] = map.cosines[i];
  map.weights.forEach((weight, j) => {
    const factor = gamma * weight, start = (j + 1) * count;
    for (let i = 0; i < count; i++) found[i] -= factor * map.cosines[start + i];
  });
  if (map.prototype) {
    // The taught direction is as long as that of the words, at any gamma: |w|^2 = a' G a.
    const a = [1, ...map.weights.map(weight => -gamma * weight)];
    const length = Math.sqrt(Math.max(0, a.reduce((sum, p, i) => sum + a.reduce((own, q, j) => own + p * q * map.gram[i][j], 0), 0)));
    for (let i = 0; i < count; i++) found[i] = (1 - mix) * found[i] + mix * length * map.prototype[i];
  }
  return found;
}

export function extent(values) {
  let low = Infinity, high = -Infinity, at = -1;
  values.forEach((value, i) => { if (value < low) low = value; if (value > high) { high = value; at = i; } });
  return { low, high, at };
}

function taps(size, scale, offset, cells) {
  // Catmull-Rom weights of the four cells around each pixel's centre; the edge value holds beyond the outermost centres.
  const index = new Int32Array(size * 4), weight = new Float32Array(size * 4);
  for (let i = 0; i < size; i++) {
    const place = Math.min(Math.max((i + 0.5) * scale + offset - 0.5, cells[0]), cells[1]);
    const lower = Math.floor(place), t = place - lower, t2 = t * t, t3 = t2 * t;
    const w = [0.5 * (-t3 + 2 * t2 - t), 0.5 * (3 * t3 - 5 * t2 + 2), 0.5 * (-3 * t3 + 4 * t2 + t), 0.5 * (t3 - t2)];
    for (let k = 0; k < 4; k++) {
      index[4 * i + k] = Math.min(Math.max(lower + k - 1, cells[0]), cells[1]);
      weight[4 * i + k] = w[k];
    }
  }
  return { index, weight };
}

function span(values, grid, rows) {
  let first = -1, last = -1;
  for (let i = 0; i < (rows ? grid[0] : grid[1]); i++) {
    let seen = false;
    for (let j = 0; j < (rows ? grid[1] : grid[0]) && !seen; j++) seen = !Number.isNaN(values[rows ? i * grid[1] + j : j * grid[1] + i]);
    if (seen) { if (first < 0) first = i; last = i; }
  }
  return [Math.max(first, 0), Math.max(last, 0)];
}

// Cells without a score, such as those outside a place that was asked for, take that of their neighbours: two steps are as far as the
// interpolation reaches.
function continued(values, [rows, columns]) {
  let found = values;
  for (let step = 0; step < 2; step++) {
    const before = found;
    found = Float32Array.from(before);
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        if (!Number.isNaN(before[y * columns + x])) continue;
        let sum = 0, count = 0;
        for (let dy = -1; dy <= 1; dy++) {
          for (let dx = -1; dx <= 1; dx++) {
            const at = y + dy < 0 || y + dy >= rows || x + dx < 0 || x + dx >= columns ? NaN : before[(y + dy) * columns + x + dx];
            if (!Number.isNaN(at)) { sum += at; count++; }
          }
        }
        if (count) found[y * columns + x] = sum / count;
      }
    }
  }
  return found;
}

// Interpolates grid scores at the pixels of a picture of width x height (any size of the whole picture).
export function heatmap(given, map, width, height) {
  const [rows, columns] = map.grid, holes = given.some(Number.isNaN), values = holes ? continued(given, map.grid) : given;
  const sx = map.original[1] / width * map.scale[1] / map.cell[1], sy = map.original[0] / height * map.scale[0] / map.cell[0];
  const sides = span(given, map.grid, false), ends = span(given, map.grid, true);
  const across = taps(width, sx, map.offset[1] / map.cell[1], sides), down = taps(height, sy, map.offset[0] / map.cell[0], ends);
  const wide = new Float32Array(rows * width);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let k = 0; k < 4; k++) sum += values[y * columns + across.index[4 * x + k]] * across.weight[4 * x + k];
      wide[y * width + x] = sum;
    }
  }
  const found = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    const i = down.index.subarray(4 * y, 4 * y + 4), w = down.weight.subarray(4 * y, 4 * y + 4), start = y * width;
    const a = i[0] * width, b = i[1] * width, c = i[2] * width, d = i[3] * width;
    for (let x = 0; x < width; x++) found[start + x] = wide[a + x] * w[0] + wide[b + x] * w[1] + wide[c + x] * w[2] + wide[d + x] * w[3];
  }
  if (holes) {
    const cell = (i, scale, offset, most) => Math.min(Math.max(Math.floor((i + 0.5) * scale + offset), 0), most - 1);
    for (let y = 0; y < height; y++) {
      const row = cell(y, sy, map.offset[0] / map.cell[0], rows) * columns;
      for (let x = 0; x < width; x++) if (Number.isNaN(given[row + cell(x, sx, map.offset[1] / map.cell[1], columns)])) found[y * width + x] = NaN;
    }
  }
  return found;
}

const RED = [[255, 214, 160], [250, 138, 66], [214, 40, 40], [128, 0, 38]];
const BLUE = [[186, 222, 240], [104, 172, 214], [33, 102, 172], [8, 38, 92]];

function ramp(stops, share) {
  const place = Math.min(share, 1) * (stops.length - 1), i = Math.min(Math.floor(place), stops.length - 2), t = place - i;
  return stops[i].map((value, k) => value + t * (stops[i + 1][k] - value));
}

const TABLE = 512;
function table(stops) {
  const found = new Uint8ClampedArray(TABLE * 3);
  for (let i = 0; i < TABLE; i++) ramp(stops, i / (TABLE - 1)).forEach((value, k) => { found[3 * i + k] = value; });
  return found;
}
const TABLES = { red: table(RED), blue: table(BLUE) };

// Colours a heatmap: red above zero, blue below, clear at zero; full colour at +-reach. Without contrasts zero means nothing: clear at `low`.
export function colour(values, image, scale, opacity) {
  const data = image.data, { low, reach, signed } = scale, range = signed ? reach : Math.max(reach - low, 1e-6);
  for (let i = 0; i < values.length; i++) {
    const value = signed ? values[i] : values[i] - low, size = Math.min(Math.abs(value) / range, 1);
    const colours = value >= 0 || !signed ? TABLES.red : TABLES.blue, at = 3 * Math.round(size * (TABLE - 1));
    data[4 * i] = colours[at]; data[4 * i + 1] = colours[at + 1]; data[4 * i + 2] = colours[at + 2];
    data[4 * i + 3] = Number.isNaN(values[i]) || (!signed && value < 0) ? 0 : 255 * opacity * Math.min(1, 1.35 * Math.pow(size, 0.75));
  }
}

export function drawBar(canvas, scale) {
  const context = canvas.getContext('2d'), width = canvas.width;
  for (let x = 0; x < width; x++) {
    const share = scale.signed ? 2 * x / (width - 1) - 1 : x / (width - 1);
    const [r, g, b] = ramp(share < 0 ? BLUE : RED, Math.abs(share));
    context.fillStyle = `rgb(${r} ${g} ${b})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}

// Outline of values > limit by marching squares, as a path in the pixels of the heatmap.
export function outline(values, width, height, limit) {
  const path = new Path2D();
  const at = (x, y) => (x < 0 || y < 0 || x >= width || y >= height) ? -Infinity : values[y * width + x];
  const cut = (a, b) => (a === -Infinity || b === -Infinity) ? (a === -Infinity ? 0.5 : 0.5) : (limit - a) / (b - a);
  for (let y = -1; y < height; y++) {
    for (let x = -1; x < width; x++) {
      const a = at(x, y), b = at(x + 1, y), c = at(x + 1, y + 1), d = at(x, y + 1);
      const code = (a > limit ? 8 : 0) | (b > limit ? 4 : 0) | (c > limit ? 2 : 0) | (d > limit ? 1 : 0);
      if (code === 0 || code === 15) continue;
      const ox = x + 0.5, oy = y + 0.5;
      const top = [ox + cut(a, b), oy], right = [ox + 1, oy + cut(b, c)], bottom = [ox + cut(d, c), oy + 1], left = [ox, oy + cut(a, d)];
      const line = (p, q) => { path.moveTo(p[0], p[1]); path.lineTo(q[0], q[1]); };
      switch (code) {
        case 1: case 14: line(left, bottom); break;
        case 2: case 13: line(bottom, right); break;
        case 3: case 12: line(left, right); break;
        case 4: case 11: line(top, right); break;
        case 5: line(left, top); line(bottom, right); break;
        case 6: case 9: line(top, bottom); break;
        case 7: case 8: line(left, top); break;
        case 10: line(left, bottom); line(top, right); break;
      }
    }
  }
  return path;
}

// Runs of a mask, row by row, zeros first.
export function runs(mask) {
  const found = [];
  let last = 0, length = 0;
  for (const value of mask) {
    const bit = value ? 1 : 0;
    if (bit !== last) { found.push(length); length = 0; last = bit; }
    length++;
  }
  found.push(length);
  return found;
}

export function fromRuns(list, size) {
  const mask = new Uint8Array(size);
  let at = 0, bit = 0;
  for (const length of list) { if (bit) mask.fill(1, at, at + length); at += length; bit ^= 1; }
  return mask;
}

// A click or a score at a place: cell of the grid under a point of the original picture.
export function cellAt(map, x, y) {
  const column = Math.floor((x * map.scale[1] + map.offset[1]) / map.cell[1]), row = Math.floor((y * map.scale[0] + map.offset[0]) / map.cell[0]);
  return row < 0 || column < 0 || row >= map.grid[0] || column >= map.grid[1] ? -1 : row * map.grid[1] + column;
}
