"use strict";
/* global number */
/* exported VIEWS, rowsOf, sortRows, drawConfusion, drawMap */

/* The views: which rows each shows, in which order, and the two that choose examples in a panel of their own. */

const RANDOM_EVERY = 5; // of the cards of the first view, one in so many is from the random stratum
const SHOWN_CLASSES = 30; // of a confusion matrix

const VIEWS = [
  {
    id: "wrong",
    title: "Most likely wrong",
    about: (table) =>
      `Hardest by ${table.score} first. One in ${RANDOM_EVERY} cards is drawn at random; decide on these too.`,
    rows: likelyWrong,
  },
  {
    id: "classes",
    title: "Hardest per class",
    about: () => "The hardest of each class in turn, then the second of each, and so on.",
    when: (table) => table.numClasses > 1,
    rows: hardestPerClass,
  },
  {
    id: "dropped",
    title: "Dropped by the plan",
    about: () => "What the plan leaves out of training, hardest first.",
    when: (table) => table.dropped !== null,
    rows: (table) => allRows(table).filter((row) => table.dropped[row]),
  },
  {
    id: "architectures",
    title: "Architectures disagree",
    about: (table) => `Largest difference of the mean percentile of ${table.score} between architectures first.`,
    when: (table) => table.architectures.length > 1,
    rows: (table) => sortBy(allRows(table), (row) => -table.disagreement.by[row]),
  },
  {
    id: "confusion",
    title: "Confusion",
    about: () => "Given labels against suggested ones, of all examples. A cell opens its examples, the most probable suggestion first.",
    when: (table) => table.confusion !== null,
    rows: suggestedOther,
    panel: "confusion",
  },
  {
    id: "map",
    title: "Data map",
    about: () => "Drag over points, or type ranges, to select their examples.",
    when: (table) => table.scores.length > 1,
    rows: allRows,
    panel: "map",
  },
  {
    id: "random",
    title: "Random stratum",
    about: () => "Drawn whatever their scores, in the order in which to look at them: what they tell holds for all examples.",
    rows: (table) => table.stratum,
  },
  {
    id: "decided",
    title: "Decided",
    about: () => "What you decided, to look at again.",
    rows: (table, entryOf) => allRows(table).filter((row) => entryOf(row) !== undefined),
  },
];

function allRows(table) {
  return Array.from({ length: table.size }, (_, row) => row);
}

function sortBy(rows, value) {
  const keys = new Float64Array(rows.length);
  rows.forEach((row, place) => {
    const key = value(row);
    keys[place] = Number.isNaN(key) ? Infinity : key;
  });
  const order = rows.map((_, place) => place);
  order.sort((a, b) => (keys[a] < keys[b] ? -1 : keys[a] > keys[b] ? 1 : a - b));
  return order.map((place) => rows[place]);
}

function likelyWrong(table) {
  const taken = new Uint8Array(table.size);
  const rows = [];
  let next = 0;
  const take = (row) => {
    if (taken[row]) return false;
    taken[row] = 1;
    rows.push(row);
    return true;
  };
  for (let row = 0; row < table.size; row += 1) {
    take(row);
    if (rows.length % RANDOM_EVERY === RANDOM_EVERY - 1) {
      while (next < table.stratum.length && !take(table.stratum[next])) next += 1;
    }
  }
  return rows;
}

function hardestPerClass(table) {
  const seen = new Map();
  const rank = allRows(table).map((row) => {
    const found = seen.get(table.label[row]) ?? 0;
    seen.set(table.label[row], found + 1);
    return found;
  });
  return sortBy(allRows(table), (row) => rank[row]);
}

function suggestedOther(table, _, state) {
  const same = state.class !== "" && state.class === state.suggested; // a cell of the diagonal
  const rows = allRows(table).filter((row) => same || (table.suggested[row] >= 0 && table.suggested[row] !== table.label[row]));
  return sortBy(rows, (row) => -table.probability[row]);
}

/* The rows that a state shows. */
function rowsOf(table, state, entryOf) {
  const view = VIEWS.find((one) => one.id === state.view);
  let rows = view.rows(table, entryOf, state);
  if (state.sort !== "") rows = sortRows(table, rows, state.sort, state.order);
  const wanted = (text) => (text === "" ? null : Number(text));
  const [label, suggested, from, to] = [state.class, state.suggested, state.from, state.to].map(wanted);
  const score = table.scores.find((one) => one.name === state.sort) ?? table.scores[0];
  const find = state.find.toLowerCase();
  return rows.filter((row) => {
    if (label !== null && table.label[row] !== label) return false;
    if (suggested !== null && table.suggested[row] !== suggested) return false;
    if (from !== null && !(score.percentile[row] >= from)) return false;
    if (to !== null && !(score.percentile[row] <= to)) return false;
    if (find && !table.name(row).toLowerCase().includes(find)) return false;
    if (state.view === "map" && state.box && !inBox(table, state, row)) return false;
    if (state.decision === "") return true;
    const entry = entryOf(row);
    if (state.decision === "open") return entry === undefined;
    return state.decision === "any" ? entry !== undefined : entry?.decision === state.decision;
  });
}

function sortRows(table, rows, sort, order) {
  const score = table.scores.find((one) => one.name === sort);
  const sign = order === "easy" ? 1 : -1;
  if (score !== undefined) return sortBy(rows, (row) => sign * score.percentile[row]);
  if (sort === "probability") return sortBy(rows, (row) => sign * table.probability[row]);
  if (sort === "agreed") return sortBy(rows, (row) => (-sign * table.agreed[row]) / table.asked[row]);
  return sortBy(rows, (row) => sign * table.disagreement.by[row]);
}

/* Confusion matrix */

function shownClasses(table) {
  const weight = new Map();
  for (const [given, suggested, count] of table.confusion) {
    const more = given === suggested ? 1e-9 * count : count;
    weight.set(given, (weight.get(given) ?? 0) + more);
    weight.set(suggested, (weight.get(suggested) ?? 0) + more);
  }
  const classes = [...weight.keys()].sort((a, b) => weight.get(b) - weight.get(a)).slice(0, SHOWN_CLASSES);
  return classes.sort((a, b) => a - b);
}

function drawConfusion(panel, table, state, open) {
  const classes = shownClasses(table);
  const counts = new Map(table.confusion.map(([given, suggested, count]) => [`${given} ${suggested}`, count]));
  const most = Math.max(1, ...table.confusion.filter(([g, s]) => g !== s).map(([, , count]) => count));
  const make = (tag, text = "", className = "") => Object.assign(document.createElement(tag), { textContent: text, className });
  const matrix = make("table", "", "confusion");
  matrix.append(make("caption", "rows: given label · columns: suggested label"));
  const head = make("tr");
  head.append(make("td"));
  for (const label of classes) {
    const cell = make("th");
    cell.scope = "col";
    cell.append(make("bdi", table.className(label)));
    head.append(cell);
  }
  matrix.append(head);
  for (const given of classes) {
    const row = make("tr");
    const name = make("th");
    name.scope = "row";
    name.append(make("bdi", table.className(given)));
    row.append(name);
    for (const suggested of classes) {
      const count = counts.get(`${given} ${suggested}`) ?? 0;
      const cell = make("td", "", given === suggested ? "same" : "");
      if (count) {
        const button = make("button", count.toLocaleString("en"));
        button.type = "button";
        button.setAttribute("aria-label", `given ${table.className(given)}, suggested ${table.className(suggested)}: ${count}`);
        button.setAttribute("aria-pressed", String(state.class === String(given) && state.suggested === String(suggested)));
        button.style.setProperty("--share", given === suggested ? "0" : String(0.08 + 0.3 * Math.sqrt(count / most)));
        button.addEventListener("click", () => open(given, suggested));
        cell.append(button);
      }
      row.append(cell);
    }
    matrix.append(row);
  }
  const scroll = make("div", "", "scroll-x");
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "Confusion matrix");
  scroll.append(matrix);
  const often = make("ul", "", "often");
  often.append(make("li", "Most often", "quiet"));
  for (const [given, suggested, count] of table.confusion.filter(([g, s]) => g !== s).slice(0, 9)) {
    const button = make("button");
    button.type = "button";
    button.append(make("bdi", table.className(given)), "→", make("bdi", table.className(suggested)), make("span", count.toLocaleString("en"), "count"));
    button.addEventListener("click", () => open(given, suggested));
    const item = make("li");
    item.append(button);
    often.append(item);
  }
  const both = make("div", "", "confusions");
  both.append(scroll, often);
  panel.replaceChildren(both);
  if (classes.length < table.numClasses && classes.length === SHOWN_CLASSES) {
    panel.append(make("p", `The ${SHOWN_CLASSES} classes that are confused most, of ${table.numClasses}.`, "quiet"));
  }
}

/* Data map */

function axesOf(table, state) {
  const find = (name, otherwise) => table.scores.find((score) => score.name === name) ?? otherwise;
  const x = find(state.x, find("variability", table.scores[1]));
  const y = find(state.y, find("confidence", table.scores[0]));
  return { x, y };
}

function inBox(table, state, row) {
  const { x, y } = axesOf(table, state);
  const [left, right, low, high] = state.box.split(",").map(Number);
  return x.mean[row] >= left && x.mean[row] <= right && y.mean[row] >= low && y.mean[row] <= high;
}

function extent(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  const margin = 0.03 * (high - low || 1);
  return [low - margin, high + margin];
}

function drawMap(panel, table, state, choose) {
  const { x, y } = axesOf(table, state);
  const make = (tag, more = {}) => Object.assign(document.createElement(tag), more);
  const canvas = make("canvas", { className: "map" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Data map: ${y.name} against ${x.name}, a point for each of ${table.size} examples`);
  const controls = make("div", { className: "map-controls" });
  const axis = (title, key, chosen) => {
    const select = make("select");
    for (const score of table.scores) select.append(make("option", { value: score.name, textContent: score.name, selected: score === chosen }));
    select.addEventListener("change", () => choose({ [key]: select.value, box: "" }));
    const label = make("label", { textContent: `${title} ` });
    label.append(select);
    return label;
  };
  controls.append(axis("Across", "x", x), axis("Up", "y", y));
  const box = state.box ? state.box.split(",").map(Number) : [...extent(x.mean), ...extent(y.mean)];
  const inputs = [`${x.name} from`, `${x.name} to`, `${y.name} from`, `${y.name} to`].map((title, place) => {
    const input = make("input", { type: "number", step: "any", value: number(box[place], 4) });
    const label = make("label", { textContent: `${title} ` });
    label.append(input);
    controls.append(label);
    input.addEventListener("change", () => choose({ box: inputs.map((one) => Number(one.value)).join(",") }));
    return input;
  });
  if (state.box) {
    const all = make("button", { type: "button", textContent: "Select all" });
    all.addEventListener("click", () => choose({ box: "" }));
    controls.append(all);
  }
  const key = make("p", { className: "quiet map-key" });
  key.append(
    make("span", { className: "dot same" }), " suggestion is the given label  ",
    make("span", { className: "dot other" }), " another label is suggested",
  );
  panel.replaceChildren(canvas, controls);
  if (table.suggests) panel.append(key);
  paintMap(canvas, table, x, y, state, choose);
}

function paintMap(canvas, table, x, y, state, choose) {
  const [width, height, scale] = [canvas.clientWidth || 600, canvas.clientHeight || 360, devicePixelRatio || 1];
  canvas.width = width * scale;
  canvas.height = height * scale;
  const [left, right, bottom, top] = [52, width - 12, height - 38, 12];
  const [xs, ys] = [extent(x.mean), extent(y.mean)];
  const across = (value) => left + ((value - xs[0]) / (xs[1] - xs[0])) * (right - left);
  const up = (value) => bottom - ((value - ys[0]) / (ys[1] - ys[0])) * (bottom - top);
  const styles = getComputedStyle(canvas);
  const colour = (name) => styles.getPropertyValue(name).trim();
  const context = canvas.getContext("2d");
  const paint = (drag) => {
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = `12px ${styles.fontFamily}`;
    context.fillStyle = colour("--quiet");
    context.strokeStyle = colour("--line");
    context.strokeRect(left + 0.5, top + 0.5, right - left, bottom - top);
    for (let step = 0; step <= 4; step += 1) {
      const [xv, yv] = [xs[0] + (step / 4) * (xs[1] - xs[0]), ys[0] + (step / 4) * (ys[1] - ys[0])];
      context.textAlign = step === 4 ? "right" : step === 0 ? "left" : "center";
      context.fillText(number(xv, 2), across(xv), bottom + 15);
      context.textAlign = "right";
      context.fillText(number(yv, 2), left - 6, up(yv) + (step === 4 ? 10 : 4));
    }
    context.textAlign = "center";
    context.fillText(x.name, (left + right) / 2, bottom + 32);
    context.save();
    context.translate(12, (top + bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.fillText(y.name, 0, 0);
    context.restore();
    const size = table.size > 20000 ? 1.5 : table.size > 3000 ? 2.5 : 4;
    for (const other of [false, true]) {
      context.fillStyle = colour(other ? "--point-other" : "--point-same");
      context.globalAlpha = other ? 0.8 : 0.45;
      for (let row = 0; row < table.size; row += 1) {
        if ((table.suggested[row] >= 0 && table.suggested[row] !== table.label[row]) === other && !Number.isNaN(x.mean[row])) {
          context.fillRect(across(x.mean[row]) - size / 2, up(y.mean[row]) - size / 2, size, size);
        }
      }
    }
    context.globalAlpha = 1;
    const box = drag ?? (state.box ? corners(state.box) : null);
    if (box) {
      context.strokeStyle = colour("--accent");
      context.lineWidth = 2;
      context.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
      context.lineWidth = 1;
    }
  };
  const corners = (text) => {
    const [a, b, c, d] = text.split(",").map(Number);
    return [across(a), up(d), across(b), up(c)];
  };
  const value = (place, from, to, [low, high]) => low + ((place - from) / (to - from)) * (high - low);
  let start = null;
  const at = (event) => {
    const frame = canvas.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    start = at(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => start && paint([...start, ...at(event)]));
  canvas.addEventListener("pointerup", (event) => {
    if (!start) return;
    const [[x0, y0], [x1, y1]] = [start, at(event)];
    start = null;
    if (Math.abs(x1 - x0) < 4 || Math.abs(y1 - y0) < 4) return paint(null);
    const [l, r] = [Math.min(x0, x1), Math.max(x0, x1)].map((place) => value(place, left, right, xs));
    const [h, b] = [Math.min(y0, y1), Math.max(y0, y1)].map((place) => value(place, bottom, top, ys));
    return choose({ box: [l, r, b, h].map((one) => Number(one.toPrecision(6))).join(",") });
  });
  paint(null);
}
