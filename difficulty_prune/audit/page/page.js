"use strict";
/* global readTable, visible, percent, number, short, spread, DecisionStore, csvOf, jsonOf, readDecisions, keyOf, WORDS */
/* global VIEWS, rowsOf, drawConfusion, drawMap, remaining */

/* The page: state in the address, cards of what is on the screen, keys, decisions, when to stop. */

(() => {
  const START = { view: "wrong", sort: "", order: "hard", class: "", suggested: "", decision: "", from: "", to: "", find: "", x: "", y: "", box: "" };
  const ON_CARD = 3; // scores on a card; the others are in its details
  const TALLEST = 3e7; // pixels that browsers allow an element
  const NEXT = 50;
  const FEWEST = 20; // decisions, before an estimate is shown

  const byId = (id) => document.getElementById(id);
  const make = (tag, className = "", text = "") => Object.assign(document.createElement(tag), { className, textContent: text });
  const many = (count, one, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;

  const table = readTable();
  const store = new DecisionStore(table.digest);
  const keyOfRow = (row) => keyOf(table.ids?.[row], table.index[row]);
  const entryOf = (row) => store.get(keyOfRow(row));
  const [scroller, list] = [byId("scroller"), byId("list")];
  const views = VIEWS.filter((view) => view.when?.(table) ?? true);
  const names = new Map(Array.from({ length: table.size }, (_, row) => [keyOfRow(row), row]));
  const digits = digitClasses();

  let state = readState();
  let rows = [];
  let cursor = 0;
  let layout = { columns: 1, height: 1, gap: 0 };
  const cards = new Map(); // place in `rows` -> card
  const spare = [];

  /* State in the address */

  function readState() {
    const given = new URLSearchParams(location.hash.slice(1));
    const found = { ...START };
    for (const name of Object.keys(START)) if (given.has(name)) found[name] = given.get(name);
    if (!views.some((view) => view.id === found.view)) found.view = START.view;
    for (const name of ["class", "suggested", "from", "to"]) if (Number.isNaN(Number(found[name]))) found[name] = "";
    if (found.box && found.box.split(",").filter((part) => part.trim() && !Number.isNaN(Number(part))).length !== 4) found.box = "";
    return found;
  }

  function addressOf(what) {
    const said = new URLSearchParams();
    for (const [name, value] of Object.entries(what)) if (value !== START[name]) said.set(name, value);
    return `#${said}`;
  }

  function go(change, { push = false } = {}) {
    state = { ...state, ...change };
    const address = addressOf(state);
    if (push) location.hash = address;
    else location.replace(address);
    cursor = 0;
    refresh({ top: true });
  }

  window.addEventListener("hashchange", () => {
    const found = readState();
    if (addressOf(found) === addressOf(state)) return;
    state = found;
    cursor = 0;
    refresh({ top: true });
  });

  /* What is on the screen */

  function refresh({ top = false } = {}) {
    rows = rowsOf(table, state, entryOf);
    cursor = Math.max(0, Math.min(cursor, rows.length - 1));
    showControls();
    showPanel();
    showStatus();
    byId("nothing").hidden = rows.length > 0;
    for (const place of [...cards.keys()]) release(place);
    measure();
    if (top) scroller.scrollTop = 0;
    draw();
  }

  function showStatus() {
    const view = VIEWS.find((one) => one.id === state.view);
    byId("about").textContent = view.about(table);
    const whole = table.size < table.examples ? ` of the ${table.size.toLocaleString("en")} on this page` : "";
    byId("status").textContent = `${many(rows.length, "example")}${whole}`;
    byId("undo").disabled = store.undone.length === 0;
    for (const link of byId("views").querySelectorAll("a")) {
      if (link.dataset.view === state.view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
      if (link.dataset.view === "decided") link.querySelector(".count").textContent = store.entries.size.toLocaleString("en");
      link.href = addressOf({ ...START, view: link.dataset.view });
    }
  }

  function showPanel() {
    const panel = byId("panel");
    const kind = VIEWS.find((one) => one.id === state.view).panel;
    panel.hidden = kind === undefined;
    if (kind === undefined) panel.replaceChildren();
    if (kind === "confusion") {
      drawConfusion(panel, table, state, (given, suggested) => {
        const same = state.class === String(given) && state.suggested === String(suggested);
        go(same ? { class: "", suggested: "" } : { class: String(given), suggested: String(suggested) }, { push: true });
        panel.querySelector('[aria-pressed="true"]')?.focus();
      });
    }
    if (kind === "map") drawMap(panel, table, state, (change) => go(change));
  }

  function measure() {
    const style = getComputedStyle(list);
    const pixels = (name) => parseFloat(style.getPropertyValue(name));
    const [least, height, gap] = [pixels("--card-width"), pixels("--card-height"), pixels("--card-gap")];
    const width = list.clientWidth;
    const columns = Math.max(1, Math.floor((width + gap) / (least + gap)));
    layout = { columns, height, gap, width: (width - gap * (columns - 1)) / columns };
    const lines = Math.min(Math.ceil(rows.length / columns), Math.floor(TALLEST / (height + gap)));
    list.style.height = `${Math.max(0, lines * (height + gap) - gap)}px`;
    layout.lines = lines;
  }

  function draw() {
    const above = scroller.scrollTop - list.offsetTop;
    const pitch = layout.height + layout.gap;
    const first = Math.max(0, Math.floor(above / pitch) - 1);
    const last = Math.min(layout.lines, Math.ceil((above + scroller.clientHeight) / pitch) + 1);
    const [from, to] = [first * layout.columns, Math.min(rows.length, last * layout.columns)];
    for (const place of [...cards.keys()]) if (place < from || place >= to) release(place);
    for (let place = from; place < to; place += 1) if (!cards.has(place)) hold(place);
  }

  function release(place) {
    const card = cards.get(place);
    cards.delete(place);
    card.element.remove();
    spare.push(card);
  }

  function hold(place) {
    const card = spare.pop() ?? makeCard();
    cards.set(place, card);
    fill(card, place);
    const line = Math.floor(place / layout.columns);
    const column = place % layout.columns;
    card.element.style.width = `${layout.width}px`;
    card.element.style.transform = `translate(${column * (layout.width + layout.gap)}px, ${line * (layout.height + layout.gap)}px)`;
    const after = [...cards.keys()].filter((other) => other > place).sort((a, b) => a - b)[0];
    list.insertBefore(card.element, after === undefined ? null : cards.get(after).element); // in the order of reading
  }

  /* Cards */

  function makeCard() {
    const card = { element: make("li", "card") };
    card.picture = make("button", "picture");
    card.picture.type = "button";
    card.state = make("span", "chip state");
    card.random = make("span", "chip random", "random");
    card.frame = make("div", "frame-of-picture");
    card.frame.append(card.picture, card.state, card.random);
    card.name = make("bdi");
    const name = make("p", "name");
    name.append(card.name);
    card.labels = make("p", "labels");
    card.scores = make("div", "scores");
    const head = make("p", "score head");
    head.append(make("span", "title", "score"), make("span", "value", "mean ± s.e."), make("span", "rank", "perc."));
    head.lastChild.title = "Percentile of difficulty: the hardest example is near 100";
    card.scores.append(head);
    card.lines = table.scores.slice(0, ON_CARD).map((score) => {
      const line = { row: make("p", "score"), value: make("span", "value"), error: make("span", "error"), rank: make("span", "rank") };
      const title = make("span", "title", score.name);
      title.title = score.summary;
      line.row.append(title, line.value, line.error, line.rank);
      card.scores.append(line.row);
      return line;
    });
    card.agree = make("p", "agree");
    card.actions = make("div", "actions");
    card.buttons = [
      ["accept", "Accept", "Accept the suggested label"],
      ["keep", "Keep", "Keep: the given label is right"],
      ["label", "Label", "Choose the right label"],
      ["drop", "Drop", "Drop the example"],
      ["unsure", "Unsure", "Unsure"],
    ]
      .filter(([action]) => action !== "accept" || table.suggests)
      .filter(([action]) => action !== "label" || table.numClasses > 1)
      .map(([action, text, title]) => {
        const button = make("button", action, text);
        button.type = "button";
        button.title = title;
        button.dataset.action = action;
        card.actions.append(button);
        return button;
      });
    const body = make("div", "body");
    body.append(name, card.labels, card.scores, card.agree, card.actions);
    card.element.append(card.frame, body);
    card.element.tabIndex = -1;
    return card;
  }

  function fill(card, place) {
    const row = rows[place];
    card.place = place;
    card.element.dataset.place = String(place);
    card.element.setAttribute("aria-posinset", String(place + 1));
    card.element.setAttribute("aria-setsize", String(rows.length));
    card.picture.setAttribute("aria-label", `Open ${visible(table.name(row))}`);
    showContent(card.picture, row);
    card.name.textContent = visible(table.name(row));
    card.name.parentElement.title = card.name.textContent;
    card.labels.replaceChildren(...labelsOf(row));
    card.lines.forEach((line, which) => {
      const score = table.scores[which];
      const rank = score.percentile[row];
      line.value.textContent = short(score.mean[row]);
      line.error.textContent = spread(score.error[row], score.mean[row]);
      line.rank.textContent = Number.isNaN(rank) ? "–" : rank.toFixed(1);
    });
    card.agree.textContent = agreement(row);
    card.random.hidden = !table.isSampled[row];
    mark(card);
  }

  /* What depends on decisions and on the cursor. */
  function mark(card) {
    const row = rows[card.place];
    const entry = entryOf(row);
    card.element.className = `card${entry ? ` is-${entry.decision}` : ""}`;
    card.state.hidden = entry === undefined;
    card.state.textContent = entry ? inWords(entry) : "";
    const current = card.place === cursor;
    card.element.tabIndex = current ? 0 : -1;
    if (current) card.element.setAttribute("aria-current", "true");
    else card.element.removeAttribute("aria-current");
    for (const button of card.buttons) {
      const action = button.dataset.action;
      if (action === "accept") button.disabled = table.suggested[row] < 0;
      if (action !== "label") button.setAttribute("aria-pressed", String(isDecided(row, entry, action)));
    }
  }

  function isDecided(row, entry, action) {
    if (action !== "accept") return entry?.decision === action;
    return entry?.decision === "wrong" && entry.label === table.suggested[row];
  }

  function inWords(entry) {
    return entry.decision === "wrong" && entry.label !== null ? `wrong → ${table.className(entry.label)}` : entry.decision;
  }

  function labelsOf(row) {
    const given = make("span", "given");
    given.append(make("bdi", "", table.className(table.label[row])));
    if (table.suggested[row] < 0) return [given];
    const same = table.suggested[row] === table.label[row];
    const suggested = make("span", same ? "suggested same" : "suggested");
    suggested.append(make("bdi", "", same ? "✓" : table.className(table.suggested[row])));
    suggested.title = same ? "Training suggests the given label" : "The label that training suggests";
    const arrow = make("span", "arrow", same ? "" : "→");
    arrow.setAttribute("aria-hidden", "true");
    return [given, make("span", "hidden", same ? "suggested too" : "suggested:"), arrow, suggested, make("span", "probability", percent(table.probability[row]))];
  }

  function agreement(row) {
    const asked = table.asked[row];
    return asked ? `${table.agreed[row]} of ${many(asked, "run")} agree${asked === 1 ? "s" : ""} with the label` : "";
  }

  function showContent(element, row, size = 0) {
    const content = table.contents[row];
    element.className = element.className.replace(/ is-\w+/g, "");
    element.replaceChildren();
    element.classList.add(`is-${content[0]}`);
    if (content[0] === "image") {
      const image = make("img", Math.max(content[2], content[3]) <= 64 ? "pixels" : "");
      image.alt = "";
      image.decoding = "async";
      image.src = content[1];
      image.classList.toggle("tall", content[3] > content[2]);
      element.append(image);
    } else if (content[0] === "sheet") {
      element.append(tile(content, size || parseFloat(getComputedStyle(list).getPropertyValue("--picture"))));
    } else if (content[0] === "row") {
      const values = make("span", "values");
      for (const [name, value] of content[1]) {
        const pair = make("span", "pair");
        pair.append(make("bdi", "quiet", visible(name)), make("bdi", "", visible(value)));
        values.append(pair);
      }
      element.append(values);
    } else {
      element.append(make("span", "text", content[1].split("\n").map(visible).join("\n")));
      element.lastChild.dir = "auto";
    }
  }

  /* One image of a sheet, as large as fits into a square. */
  function tile([, sheet, place, width, height], size) {
    const [path, cell, across, down] = table.sheets[sheet];
    const scale = size / Math.max(width, height);
    const element = make("span", Math.max(width, height) <= 64 ? "tile pixels" : "tile");
    Object.assign(element.style, {
      width: `${width * scale}px`,
      height: `${height * scale}px`,
      backgroundImage: `url("${encodeURI(path).replaceAll("#", "%23").replaceAll("?", "%3F")}")`,
      backgroundSize: `${across * cell * scale}px ${down * cell * scale}px`,
      backgroundPosition: `${-(place % across) * cell * scale}px ${-Math.floor(place / across) * cell * scale}px`,
    });
    return element;
  }

  /* Moving about */

  function move(to) {
    if (!rows.length) return;
    const before = cursor;
    cursor = Math.max(0, Math.min(to, rows.length - 1));
    const pitch = layout.height + layout.gap;
    const top = list.offsetTop + Math.floor(cursor / layout.columns) * pitch;
    if (top - 8 < scroller.scrollTop) scroller.scrollTop = top - 8;
    else if (top + layout.height + 8 > scroller.scrollTop + scroller.clientHeight) {
      scroller.scrollTop = top + layout.height + 8 - scroller.clientHeight;
    }
    draw();
    for (const place of [before, cursor]) if (cards.has(place)) mark(cards.get(place));
    cards.get(cursor)?.element.focus({ preventScroll: true });
  }

  /* Decisions */

  function decide(place, decision, label = null, { next = false } = {}) {
    const row = rows[place];
    if (row === undefined) return;
    const before = entryOf(row);
    const more = { weight: before?.weight ?? null, note: before?.note ?? null };
    const same = before !== undefined && before.decision === decision && before.label === label;
    const entry = { id: table.ids?.[row] ?? null, index: table.index[row], decision, label, ...more };
    store.change([[keyOfRow(row), same && !next ? null : entry]]); // a second click on a button takes it back
    cursor = place;
    const said = same && !next ? "no decision" : inWords(entry);
    const gone = state.decision !== "" || state.view === "decided";
    afterChange(`${visible(table.name(row))}: ${said}`);
    if (next && !gone) move(place + 1);
  }

  function act(place, action, options) {
    const row = rows[place];
    if (row === undefined) return;
    if (action === "label") openChoose(place);
    else if (action === "accept") {
      if (table.suggested[row] < 0) say("There is no suggestion for this example.");
      else relabel(place, table.suggested[row], options);
    } else decide(place, action, null, options);
  }

  function relabel(place, label, options) {
    if (label === table.label[rows[place]]) decide(place, "keep", null, options);
    else decide(place, "wrong", label, options);
  }

  function undo() {
    const keys = store.undo();
    if (!keys.length) return say("There is nothing to undo.");
    afterChange(`Undone: ${keys.length === 1 ? visible(keys[0].replace(/^(id|index) /, "")) : many(keys.length, "decision")}`);
    const place = keys.length === 1 ? rows.indexOf(names.get(keys[0])) : -1;
    if (place >= 0) move(place);
    return undefined;
  }

  function afterChange(message) {
    say(store.kept ? message : `${message}. This browser keeps no decisions for this page: export them before you leave.`);
    if (state.decision !== "" || state.view === "decided") {
      rows = rowsOf(table, state, entryOf);
      cursor = Math.max(0, Math.min(cursor, rows.length - 1));
      for (const place of [...cards.keys()]) release(place);
      byId("nothing").hidden = rows.length > 0;
      measure();
      draw();
      move(cursor);
    } else {
      for (const card of cards.values()) mark(card);
    }
    showStatus();
    soon();
  }

  function say(message) {
    byId("said").textContent = message;
    byId("detail-said").textContent = message; // a dialog hides what is below it from screen readers
    byId("said").classList.add("shown");
    clearTimeout(say.timer);
    say.timer = setTimeout(() => byId("said").classList.remove("shown"), 4000);
  }

  /* When to stop */

  function soon() {
    clearTimeout(soon.timer);
    soon.timer = setTimeout(showStop, 120);
  }

  /* Rows of the random stratum that were looked at in its order, without a gap: chosen by nothing that they show. */
  function lookedAt() {
    const open = table.stratum.findIndex((row) => entryOf(row) === undefined);
    return new Set(open < 0 ? table.stratum : table.stratum.slice(0, open));
  }

  function decidedRows() {
    const random = lookedAt();
    const found = { index: [], wrong: [], sampled: [] };
    for (const [key, entry] of store.entries) {
      const row = names.get(key);
      if (row === undefined || entry.decision === "unsure" || Number.isNaN(table.difficulty[table.place[row]])) continue;
      found.index.push(table.place[row]);
      found.wrong.push(entry.decision === "wrong");
      found.sampled.push(random.has(row));
    }
    return found;
  }

  function showStop() {
    const { index, wrong, sampled } = decidedRows();
    const bad = wrong.filter(Boolean).length;
    const drawn = lookedAt().size;
    byId("stop-done").textContent =
      `${many(index.length, "decision")} so far: ${bad.toLocaleString("en")} wrong. ` +
      `${drawn.toLocaleString("en")} of ${many(table.stratum.length, "random example")} looked at, in their order.`;
    const found = index.length >= FEWEST ? remaining(table.difficulty, index, wrong, sampled) : null;
    if (found === null) {
      byId("stop-left").textContent = `Decide on ${FEWEST} examples or more to see how many wrong labels are left.`;
      byId("stop-next").textContent = "";
      byId("stop-left").className = "";
      return;
    }
    const value = Math.round(found.value);
    const [low, high] = [Math.floor(found.interval[0]), Math.ceil(found.interval[1])];
    byId("stop-left").className = "known";
    byId("stop-left").textContent =
      `About ${many(value, "wrong label")} ${value === 1 ? "is" : "are"} left (95 %: ${low.toLocaleString("en")} to ${high.toLocaleString("en")}).`;
    byId("stop-next").textContent = found.reached
      ? `The next ${NEXT} will hold about ${Math.round(found.next(NEXT))}.`
      : `The next ${NEXT} will hold about ${Math.round(found.next(NEXT))}. Decide on random examples to know more.`;
  }

  /* Dialogs */

  function openDialog(dialog) {
    if (!dialog.open) dialog.showModal();
  }

  function backToCard() {
    cards.get(cursor)?.element.focus({ preventScroll: true });
  }

  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
    });
    dialog.addEventListener("close", backToCard);
  }

  function openChoose(place) {
    cursor = place;
    for (const card of cards.values()) mark(card);
    const select = byId("choose-class");
    if (!select.options.length) {
      for (let label = 0; label < table.numClasses; label += 1) select.add(new Option(table.className(label), String(label)));
    }
    const row = rows[place];
    select.value = String(table.suggested[row] >= 0 ? table.suggested[row] : Math.max(0, table.label[row]));
    openDialog(byId("choose"));
    select.focus();
  }

  byId("choose-form").addEventListener("submit", (event) => {
    event.preventDefault();
    byId("choose").close();
    relabel(cursor, Number(byId("choose-class").value), { next: true });
    if (byId("detail").open) openDetail(cursor);
  });
  byId("choose-class").addEventListener("dblclick", () => byId("choose-form").requestSubmit());
  byId("choose-class").addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      byId("choose-form").requestSubmit();
    }
  });

  function openDetail(place) {
    const row = rows[place];
    if (row === undefined) return byId("detail").close();
    cursor = place;
    for (const card of cards.values()) mark(card);
    const entry = entryOf(row);
    byId("detail-state").hidden = entry === undefined;
    byId("detail-state").textContent = entry ? inWords(entry) : "";
    byId("detail").className = entry ? `is-${entry.decision}` : "";
    byId("detail-name").replaceChildren(make("bdi", "", visible(table.name(row))));
    showContent(byId("detail-picture"), row, 320);
    byId("detail-labels").replaceChildren(...labelsOf(row));
    byId("detail-agree").textContent = [`index ${table.index[row]}`, agreement(row)].filter(Boolean).join(" · ");
    const scores = byId("detail-scores");
    scores.replaceChildren();
    const head = scores.createTHead().insertRow();
    for (const title of ["score", "mean", "± s.e.", "percentile"]) {
      const cell = make("th", "", title);
      cell.scope = "col";
      head.append(cell);
    }
    const body = scores.createTBody();
    const line = (title, ...values) => {
      const one = body.insertRow();
      const cell = make("th", "", title);
      cell.scope = "row";
      one.append(cell);
      for (const value of values) one.insertCell().textContent = value;
      return one;
    };
    for (const score of table.scores) {
      line(score.name, number(score.mean[row], 4), number(score.error[row], 2), number(score.percentile[row], 4)).title = score.summary;
    }
    if (table.architectures.length > 1) {
      for (const one of table.architectures) line(`${table.score}, ${visible(one.name)} alone`, "", "", number(one.percentile[row], 4));
    }
    byId("detail-note").value = entry?.note ?? "";
    if (!byId("detail").open) byId("detail-said").textContent = "";
    openDialog(byId("detail"));
    return undefined;
  }

  byId("detail-note").addEventListener("change", () => {
    const row = rows[cursor];
    const before = entryOf(row);
    const note = byId("detail-note").value.trim() || null;
    const entry = before ?? { id: table.ids?.[row] ?? null, index: table.index[row], decision: "unsure", label: null, weight: null };
    store.change([[keyOfRow(row), { ...entry, note }]]);
    afterChange(`${visible(table.name(row))}: note kept`);
  });

  /* Keys and clicks */

  function digitClasses() {
    const [classes, ten] = [table.classes, Math.min(10, table.numClasses)];
    const known = Array.from({ length: table.numClasses }, (_, label) => classes?.[label] ?? String(label));
    const found = new Map();
    if (table.numClasses <= 10 && known.every((name) => /^[0-9]$/.test(name.trim()))) {
      known.forEach((name, label) => found.set(name.trim(), label)); // the key 7 is the class 7
    } else {
      for (let label = 0; label < ten; label += 1) found.set(String((label + 1) % 10), label);
    }
    return found;
  }

  const KEYS = {
    j: () => move(cursor + 1),
    k: () => move(cursor - 1),
    ArrowDown: () => move(cursor + layout.columns),
    ArrowUp: () => move(cursor - layout.columns),
    ArrowRight: () => move(cursor + 1),
    ArrowLeft: () => move(cursor - 1),
    Home: () => move(0),
    End: () => move(rows.length - 1),
    a: () => act(cursor, "accept", { next: true }),
    c: () => act(cursor, "keep", { next: true }),
    w: () => act(cursor, "wrong", { next: true }),
    x: () => act(cursor, "drop", { next: true }),
    u: () => act(cursor, "unsure", { next: true }),
    l: () => table.numClasses > 1 && openChoose(cursor),
    z: undo,
    "?": () => openDialog(byId("help")),
  };

  const KEYS_IN_DETAIL = "jkacwxulz"; // and digits; the others move within the dialog

  document.addEventListener("keydown", (event) => {
    const dialog = document.querySelector("dialog[open]"); // the choice of a class stands before the detail
    const inDetail = dialog === byId("detail");
    if (event.ctrlKey || event.metaKey || event.altKey || (dialog && !inDetail)) return;
    if (event.target.closest?.("input, select, textarea")) return;
    if (!byId("keys-on").checked && /^[a-z0-9]$/.test(event.key)) return;
    if (event.key === "Enter" && event.target.closest?.(".card") === event.target) {
      openDetail(cursor);
    } else if (digits.has(event.key)) {
      relabel(cursor, digits.get(event.key), { next: true });
    } else if (Object.hasOwn(KEYS, event.key) && (!inDetail || KEYS_IN_DETAIL.includes(event.key))) {
      KEYS[event.key]();
    } else {
      return;
    }
    if (inDetail) openDetail(cursor);
    event.preventDefault();
  });

  list.addEventListener("click", (event) => {
    const card = event.target.closest(".card");
    if (!card) return;
    const place = Number(card.dataset.place);
    const button = event.target.closest("[data-action]");
    if (button) act(place, button.dataset.action);
    else if (event.target.closest(".picture")) openDetail(place);
    else move(place);
  });

  let waiting = false;
  scroller.addEventListener(
    "scroll",
    () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        draw();
      });
    },
    { passive: true },
  );

  new ResizeObserver(() => {
    const at = cards.get(cursor)?.element;
    for (const place of [...cards.keys()]) release(place);
    measure();
    draw();
    if (at && document.activeElement === document.body) backToCard();
  }).observe(scroller);

  /* Sorting and filtering */

  function fillSelect(id, options) {
    byId(id).replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  }

  function makeControls() {
    const sorts = [["", "the view"], ...table.scores.map((score) => [score.name, score.name])];
    if (table.suggests) sorts.push(["probability", "suggested probability"], ["agreed", "agreement of runs"]);
    if (table.architectures.length > 1) sorts.push(["architectures", "architectures disagree"]);
    fillSelect("sort", sorts);
    const present = (labels) => [...new Set(labels)].filter((label) => label >= 0).sort((a, b) => a - b);
    const classes = (labels) => [["", "any"], ...present(labels).map((label) => [String(label), table.className(label)])];
    fillSelect("class", classes(table.label));
    fillSelect("suggested", classes(table.suggested));
    byId("suggested").parentElement.hidden = !table.suggests;
    fillSelect("decision", [["", "all"], ["open", "undecided"], ["any", "decided"], ...WORDS.map((word) => [word, word])]);
    for (const view of views) {
      const link = make("a", "", view.title);
      link.href = addressOf({ ...START, view: view.id });
      link.dataset.view = view.id;
      if (view.id === "decided") link.append(make("span", "count"));
      const item = make("li");
      item.append(link);
      byId("views").append(item);
    }
    byId("legend").replaceChildren(
      ...[...digits].map(([key, label]) => {
        const item = make("li");
        item.append(make("kbd", "", key), make("bdi", "", table.className(label)));
        return item;
      }),
    );
    if (table.numClasses > digits.size) byId("legend").append(make("li", "quiet", `l: all ${table.numClasses} classes`));
    const others = table.numClasses > 1 ? `, ${table.numClasses} classes` : "";
    const shown = table.size < table.examples ? `${table.size.toLocaleString("en")} of ` : "";
    byId("summary").textContent = `${shown}${many(table.examples, "example")}${others} · ${many(table.runs, "run")}`;
    byId("title").textContent = visible(table.title);
    const from = { training: "while training", "trained models": "by the trained models" }[table.suggestedFrom];
    if (from) byId("summary").textContent += ` · labels suggested ${from}`;
    if (matchMedia("(max-width: 700px)").matches) byId("filters").open = false;
  }

  function showControls() {
    for (const name of ["sort", "order", "class", "suggested", "decision", "from", "to", "find"]) {
      const control = byId(name);
      if (control.value !== state[name]) control.value = state[name];
    }
    byId("order").disabled = state.sort === "";
    const score = table.scores.find((one) => one.name === state.sort) ?? table.scores[0];
    byId("range-legend").textContent = `Percentile of ${score.name}`;
    byId("clear").hidden = addressOf({ ...state, view: START.view, x: "", y: "" }) === "#";
  }

  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("controls").addEventListener("change", (event) => go({ [event.target.name]: event.target.value }));
  byId("find").addEventListener("input", () => go({ find: byId("find").value }));
  byId("clear").addEventListener("click", () => go({ ...START, view: state.view, x: state.x, y: state.y }));

  /* Files */

  function inOrder() {
    const place = (key) => names.get(key) ?? Infinity;
    return [...store.entries].sort(([a], [b]) => (place(a) < place(b) ? -1 : place(a) > place(b) ? 1 : 0)).map(([, entry]) => entry);
  }

  function download(name, text, type) {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function exported(name, type, textOf) {
    try {
      const entries = inOrder();
      download(name, textOf(entries), type);
      say(`${many(entries.length, "decision")} exported as ${name}`);
    } catch (error) {
      say(error.message);
    }
  }

  byId("export-csv").addEventListener("click", () => exported("decisions.csv", "text/csv", (entries) => csvOf(entries, table.classes)));
  byId("export-json").addEventListener("click", () => exported("decisions.json", "application/json", jsonOf));
  byId("undo").addEventListener("click", undo);
  byId("help-open").addEventListener("click", () => openDialog(byId("help")));
  byId("import").addEventListener("change", async () => {
    const [file] = byId("import").files;
    byId("import").value = "";
    if (!file) return;
    try {
      const entries = readDecisions(file.name, await file.text(), table.classes);
      const elsewhere = entries.filter((entry) => !names.has(rekey(entry))).length;
      store.change(entries.map((entry) => [rekey(entry), ownEntry(entry)]));
      refresh();
      afterChange(`${many(entries.length, "decision")} imported${elsewhere ? `; ${elsewhere} of examples that are not on this page are kept` : ""}`);
    } catch (error) {
      say(`${file.name} was not imported: ${error.message}`);
    }
  });

  /* A row that names its example by index alone is of the example with this index, whatever its id. */
  const rowOfIndex = new Map(Array.from(table.index, (index, row) => [index, row]));

  function rekey(entry) {
    const row = entry.id === null ? rowOfIndex.get(entry.index) : names.get(keyOf(entry.id, entry.index));
    return row === undefined ? keyOf(entry.id, entry.index) : keyOfRow(row);
  }

  function ownEntry(entry) {
    const row = names.get(rekey(entry));
    return row === undefined ? entry : { ...entry, id: table.ids?.[row] ?? null, index: table.index[row] };
  }

  window.addEventListener("storage", (event) => {
    if (event.key !== store.name) return;
    store.load();
    refresh();
    soon();
  });

  makeControls();
  refresh();
  showStop();
})();
