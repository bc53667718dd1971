"use strict";
/* exported DecisionStore, csvOf, jsonOf, readDecisions */

/* What people decided, kept in this browser, and the table that difficulty_prune reads. */

const COLUMNS = ["id", "index", "decision", "label", "weight", "note"];
const WORDS = ["keep", "wrong", "drop", "unsure"];

function keyOf(id, index) {
  return id === null || id === undefined ? `index ${index}` : `id ${id}`;
}

class DecisionStore {
  /* One entry for each example: {id, index, decision, label, weight, note}; label is a number, or null. */
  constructor(digest) {
    this.name = `difficulty-prune ${digest}`;
    this.undone = [];
    this.kept = true;
    this.load();
  }

  load() {
    this.entries = new Map();
    try {
      const text = localStorage.getItem(this.name);
      if (text !== null) this.entries = new Map(JSON.parse(text));
    } catch {
      this.kept = false;
    }
  }

  get(key) {
    return this.entries.get(key);
  }

  /* Sets several entries at once, null to remove one; what was there before can be undone in one step. */
  change(changes) {
    this.undone.push(changes.map(([key]) => [key, this.entries.get(key) ?? null]));
    this.write(changes);
  }

  undo() {
    const before = this.undone.pop();
    if (before === undefined) return [];
    this.write(before);
    return before.map(([key]) => key);
  }

  write(changes) {
    for (const [key, entry] of changes) {
      if (entry === null) this.entries.delete(key);
      else this.entries.set(key, entry);
    }
    try {
      localStorage.setItem(this.name, JSON.stringify([...this.entries]));
      this.kept = true;
    } catch {
      this.kept = false;
    }
  }
}

/* Text that UTF-8 cannot hold names its example by index alone. */
function isUnicode(text) {
  return typeof text !== "string" || !/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(text);
}

function cell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) || text !== text.trim() ? `"${text.replaceAll('"', '""')}"` : text;
}

/* The label by which a table of texts names a class; throws where both its name and its number mean another one. */
function labelText(label, classes) {
  if (label === null || classes === null) return label;
  const name = classes[label];
  const meant = (text) => {
    const found = new Set();
    classes.forEach((other, place) => other.trim() === text && found.add(place));
    if (/^[+-]?[0-9]+(\.0*)?$/.test(text) && Number(text) >= 0 && Number(text) < classes.length) found.add(Number(text));
    return found.size === 1 && found.has(label);
  };
  if (name !== undefined && name.trim() && meant(name.trim())) return name.trim();
  if (meant(String(label))) return label;
  throw new Error(`The class ${name} cannot be told from others in a CSV file. Export JSON instead.`);
}

function csvOf(entries, classes) {
  const lines = entries.map((entry) =>
    COLUMNS.map((name) => {
      if (name === "label") return cell(labelText(entry.label, classes));
      if (name === "id" && !isUnicode(entry.id)) return "";
      return cell(entry[name]);
    }).join(","),
  );
  return [COLUMNS.join(","), ...lines, ""].join("\n");
}

function jsonOf(entries) {
  const plain = entries.map((entry) => Object.fromEntries(COLUMNS.map((name) => [name, entry[name] ?? null])));
  return `[\n${plain.map((entry) => JSON.stringify(entry)).join(",\n")}\n]\n`;
}

/* The rows of CSV as [place, {column: text}]; throws for a malformed line. */
function readCsv(text) {
  const rows = [];
  let [cells, start, line, at] = [[], 1, 1, text.charCodeAt(0) === 0xfeff ? 1 : 0];
  const end = () => {
    if (cells.some((value) => value.trim())) rows.push([start, cells]);
    cells = [];
  };
  while (at < text.length) {
    let value = "";
    if (text[at] === '"') {
      for (at += 1; ; at += 1) {
        if (at >= text.length) throw new Error(`line ${start}: a quote is not closed`);
        if (text[at] === '"' && text[at + 1] !== '"') break;
        if (text[at] === '"') at += 1;
        if (text[at] === "\n") line += 1;
        value += text[at];
      }
      at += 1;
    } else {
      while (at < text.length && !",\r\n".includes(text[at])) {
        value += text[at];
        at += 1;
      }
    }
    cells.push(value);
    if (text[at] === ",") {
      at += 1;
      if (at >= text.length || "\r\n".includes(text[at])) cells.push("");
    }
    if (at >= text.length || "\r\n".includes(text[at])) {
      end();
      if (text[at] === "\r" && text[at + 1] === "\n") at += 1;
      at += 1;
      line += 1;
      start = line;
    }
  }
  if (!rows.length) throw new Error("the file is empty");
  const header = rows[0][1].map((name) => name.trim());
  return rows.slice(1).map(([place, values]) => {
    if (values.length !== header.length) throw new Error(`line ${place} has ${values.length} cells, expected ${header.length}`);
    return [`line ${place}`, Object.fromEntries(header.map((name, column) => [name, values[column]]))];
  });
}

function readJsonRows(text) {
  const rows = JSON.parse(text);
  if (!Array.isArray(rows)) throw new Error("expected a list of objects");
  return rows.map((row, place) => [`entry ${place + 1}`, row]);
}

/* The entries of a file; throws, and says where, if a row is malformed or contradicts another one. */
function readDecisions(fileName, text, classes) {
  const rows = /\.json$/i.test(fileName) ? readJsonRows(text) : readCsv(text);
  const found = new Map();
  for (const [place, row] of rows) {
    const entry = readEntry(place, row, classes);
    const key = keyOf(entry.id, entry.index);
    const other = found.get(key);
    if (other !== undefined && (other.decision !== entry.decision || other.label !== entry.label || other.weight !== entry.weight)) {
      throw new Error(`${place} contradicts an earlier row on the same example`);
    }
    if (other === undefined) found.set(key, entry);
  }
  return [...found.values()];
}

function readEntry(place, row, classes) {
  const empty = (value) => value === null || value === undefined || value === "";
  const id = empty(row.id) ? null : row.id;
  const index = empty(row.index) ? null : Number(row.index);
  const decision = String(row.decision ?? "").trim().toLowerCase();
  if (id === null && index === null) throw new Error(`${place} has neither id nor index`);
  if (index !== null && !(Number.isInteger(index) && index >= 0)) throw new Error(`${place}: index ${row.index} is no position`);
  if (!WORDS.includes(decision)) throw new Error(`${place}: decision is “${row.decision ?? ""}”, expected one of ${WORDS.join(", ")}`);
  const label = empty(row.label) || String(row.label).trim() === "" ? null : readLabel(place, row.label, classes);
  if (decision === "keep" && label !== null) throw new Error(`${place} has a label with “keep”`);
  const weight = empty(row.weight) ? null : Number(row.weight);
  if (weight !== null && !(weight >= 0 && weight < Infinity)) throw new Error(`${place}: weight ${row.weight} is no number, 0 or more`);
  return { id, index, decision, label, weight: weight === 1 ? null : weight, note: empty(row.note) ? null : String(row.note) };
}

function readLabel(place, value, classes) {
  const text = String(value).trim();
  const meant = new Set();
  const isNumber = /^[+-]?[0-9]+(\.0*)?$/.test(text) && Number(text) >= 0;
  if (typeof value !== "number") (classes ?? []).forEach((name, label) => name.trim() === text && meant.add(label));
  if (isNumber && (classes === null || Number(text) < classes.length)) meant.add(Number(text));
  if (meant.size !== 1) throw new Error(`${place}: label “${text}” is ${meant.size ? "the name of one class and the number of another" : "no class"}`);
  return [...meant][0];
}
