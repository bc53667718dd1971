"use strict";
/* exported readTable, visible, percent, number, short, spread */

/* The data of the page: columns of numbers, unpacked, and what is said of each row. */

function readJson(id) {
  const element = document.getElementById(id);
  const value = JSON.parse(element.textContent);
  element.remove(); // the text is as large as what it says
  return value;
}

function unpack(text, Kind) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return new Kind(bytes.buffer);
}

/* Marks that would reorder or hide what stands beside them are shown by their code. */
function visible(text) {
  return String(text).replace(
    /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function percent(fraction) {
  if (Number.isNaN(fraction)) return "–";
  const whole = 100 * fraction;
  return `${whole > 99 && whole < 99.95 ? whole.toFixed(1) : whole.toFixed(0)} %`;
}

function number(value, digits = 3) {
  if (Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-4) return value.toExponential(1);
  return size >= 10 ** (digits - 1) ? value.toFixed(0) : value.toPrecision(digits);
}

/* At most five characters. */
function short(value) {
  if (Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e5 || (size > 0 && size < 5e-4)) return value.toExponential(0);
  return value.toFixed(decimals(value));
}

function decimals(value) {
  const size = Math.abs(value);
  return size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
}

/* A standard error, as exactly as the mean is given. */
function spread(error, mean) {
  if (Number.isNaN(error)) return "";
  const text = error.toFixed(decimals(mean));
  return `± ${Number(text) === 0 && error > 0 ? error.toExponential(0) : text}`;
}

function readTable() {
  const data = readJson("data");
  const size = unpack(data.index, Int32Array).length;
  const table = {
    ...data,
    size,
    contents: readJson("contents"),
    index: unpack(data.index, Int32Array),
    place: unpack(data.place, Int32Array),
    label: unpack(data.label, Int32Array),
    suggested: data.suggested === null ? new Int32Array(size).fill(-1) : unpack(data.suggested, Int32Array),
    probability: unpack(data.probability, Float32Array),
    agreed: unpack(data.agreed, Int32Array),
    asked: unpack(data.asked, Int32Array),
    dropped: data.dropped === null ? null : unpack(data.dropped, Uint8Array),
    difficulty: unpack(data.difficulty, Float64Array),
    sampled: unpack(data.sampled, Int32Array),
    scores: data.scores.map((score) => ({
      ...score,
      mean: unpack(score.mean, Float32Array),
      error: unpack(score.error, Float32Array),
      percentile: unpack(score.percentile, Float32Array),
    })),
    architectures: data.architectures.map((one) => ({ ...one, percentile: unpack(one.percentile, Float32Array) })),
    suggests: data.suggested !== null,
  };
  const rowOfPlace = new Map();
  table.place.forEach((place, row) => rowOfPlace.set(place, row));
  table.stratum = Array.from(table.sampled, (place) => rowOfPlace.get(place));
  table.isSampled = new Uint8Array(size);
  for (const row of table.stratum) table.isSampled[row] = 1;
  table.disagreement = disagreement(table);
  table.name = (row) => (data.ids === null ? `example ${table.index[row]}` : String(data.ids[row]));
  table.className = (label) => (label < 0 ? "none" : visible(data.classes?.[label] ?? `class ${label}`));
  return table;
}

/* Largest difference of the mean percentile between two architectures, and which one finds the example harder. */
function disagreement(table) {
  const found = { by: new Float32Array(table.size), harder: new Int32Array(table.size), easier: new Int32Array(table.size) };
  for (let row = 0; row < table.size; row += 1) {
    let [low, high] = [0, 0];
    table.architectures.forEach((one, place) => {
      if (one.percentile[row] > table.architectures[high].percentile[row]) high = place;
      if (one.percentile[row] < table.architectures[low].percentile[row]) low = place;
    });
    found.harder[row] = high;
    found.easier[row] = low;
    found.by[row] = table.architectures[high].percentile[row] - table.architectures[low].percentile[row];
  }
  return found;
}
