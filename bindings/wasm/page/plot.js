// Drawings as SVG: a strip of chunks, and a curve with a value for each frame.

const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 920;

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) {
    const title = document.createElementNS(SVG, 'title');
    title.textContent = text;
    made.append(title);
  }
  return made;
}

function label(svg, x, y, text, anchor = 'middle') {
  const made = element('text', { x, y, 'text-anchor': anchor });
  made.textContent = text;
  svg.append(made);
}

/** The most rectangles of a strip; more chunks than that are drawn together. */
const MOST_RECTANGLES = 1500;

/**
 * A strip of parts, each as wide as it has bytes.
 * @param parts [{ kind, offset, bytes, text }], ascending, without gaps
 * @param total bytes of the file
 */
export function strip(parts, total) {
  const height = 56;
  const svg = element('svg', { viewBox: `0 0 ${WIDTH} ${height + 22}`, class: parts.length > 200 ? 'strip dense' : 'strip', role: 'img' });
  const scale = WIDTH / Math.max(total, 1);
  const bin = total / MOST_RECTANGLES;
  for (let at = 0; at < parts.length; ) {
    let end = at + 1;
    const first = parts[at];
    let bytes = first.bytes;
    // The largest of those that are drawn together gives the colour.
    let largest = first;
    const limit = (Math.floor(first.offset / bin) + 1) * bin;
    while (parts.length > MOST_RECTANGLES && end < parts.length && parts[end].offset < limit) {
      if (parts[end].bytes > largest.bytes) largest = parts[end];
      bytes += parts[end].bytes;
      end += 1;
    }
    const text = end === at + 1 ? first.text : `${end - at} chunks from byte ${first.offset}, mostly ${largest.kind}`;
    const attributes = {
      x: (first.offset * scale).toFixed(2),
      y: 0,
      width: Math.max(bytes * scale, 0.4).toFixed(2),
      height,
      fill: `var(--${largest.colour})`,
      'data-kind': largest.kind,
    };
    svg.append(element('rect', attributes, text));
    at = end;
  }
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const anchor = share === 0 ? 'start' : share === 1 ? 'end' : 'middle';
    label(svg, share * WIDTH, height + 16, `byte ${Math.round(share * total).toLocaleString('en')}`, anchor);
  }
  return svg;
}

/** Round numbers from 0 to a bit above the largest value. */
function ticks(most, count) {
  const raw = most / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  const found = [];
  for (let value = 0; value <= most + step * 0.999 && found.length <= count + 1; value += step) found.push(value);
  return found;
}

const short = (value) => Number(value.toPrecision(6)).toLocaleString('en', { maximumFractionDigits: 3 });

/** The most points of a curve; of more, the mean, the smallest and the largest of each group are drawn. */
const MOST_POINTS = 400;

/**
 * A curve over frames.
 * @param points [{ index, value, shared, text }], ascending
 * @param unit what the values are
 */
export function curve(points, unit) {
  const [left, right, top, bottom, height] = [58, 12, 12, 40, 260];
  const svg = element('svg', { viewBox: `0 0 ${WIDTH} ${height}`, role: 'img', 'data-frames': points.length });
  let [low, high, most, sum] = [points[0].index, points[0].index, 0, 0];
  for (const { index, value } of points) {
    low = Math.min(low, index);
    high = Math.max(high, index);
    most = Math.max(most, value);
    sum += value;
  }
  const marks = ticks(most, 5);
  const ceiling = marks.at(-1) || 1;
  const x = (index) => left + ((index - low) / Math.max(high - low, 1)) * (WIDTH - left - right);
  const y = (value) => height - bottom - (value / ceiling) * (height - top - bottom);
  for (const value of marks) {
    svg.append(element('line', { x1: left, x2: WIDTH - right, y1: y(value), y2: y(value), class: 'grid' }));
    label(svg, left - 8, y(value) + 4, short(value), 'end');
  }
  const steps = high - low < 10 ? Math.max(high - low, 1) : 4;
  const places = new Set(Array.from({ length: steps + 1 }, (_, step) => Math.round(low + (step / steps) * (high - low))));
  for (const index of places) {
    // A long label at the end would be cut.
    const anchor = index === high && index > 999 ? 'end' : 'middle';
    label(svg, x(index) + (anchor === 'end' ? right : 0), height - bottom + 18, index.toLocaleString('en'), anchor);
  }
  label(svg, (left + WIDTH - right) / 2, height - 4, `frame; ${unit}`);

  const group = Math.ceil(points.length / MOST_POINTS);
  const drawn = [];
  for (let at = 0; at < points.length; at += group) {
    const part = points.slice(at, at + group);
    const values = part.map((point) => point.value);
    drawn.push({
      x: x((part[0].index + part.at(-1).index) / 2),
      mean: values.reduce((total, value) => total + value, 0) / values.length,
      low: Math.min(...values),
      high: Math.max(...values),
      point: part[0],
    });
  }
  const line = (value, all) => all.map((part) => `${part.x.toFixed(1)},${y(value(part)).toFixed(1)}`).join(' ');
  if (group > 1) {
    const around = `${line((part) => part.high, drawn)} ${line((part) => part.low, drawn.toReversed?.() ?? [...drawn].reverse())}`;
    svg.append(element('polygon', { points: around, class: 'band' }));
  }
  const mean = sum / points.length;
  svg.append(element('line', { x1: left, x2: WIDTH - right, y1: y(mean), y2: y(mean), class: 'mean' }, `mean ${short(mean)}`));
  svg.append(element('polyline', { points: line((part) => part.mean, drawn), class: 'curve' }));
  if (group === 1) {
    const radius = points.length > 150 ? 1.8 : 3;
    for (const part of drawn) {
      const { index, value, shared, text } = part.point;
      const attributes = {
        cx: part.x.toFixed(1),
        cy: y(value).toFixed(1),
        r: radius,
        class: shared ? 'point shared' : 'point',
        'data-frame': index,
        'data-value': value,
      };
      svg.append(element('circle', attributes, text ?? `frame ${index}: ${short(value)}`));
    }
  }
  return svg;
}
