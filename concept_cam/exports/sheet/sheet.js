"use strict";
// The page holds every call of the run, one data file per trait; filtering, sorting and paging happen here, without a server.
const PER_PAGE = 240;
const COLOURS = ["#2f8fdd", "#e69f00", "#1fae7a", "#d55e9b", "#8f6fe0", "#e2571e", "#58b8c9", "#b3a111"];
const GREY = "#8a939d";
// What a person said is trusted most, and is surest.
const verdict = (row) => row.d ? -1 : row.v ?? run.verdicts.length;
const SORTS = {
  unsure: ["Least sure first", (a, b) => sure(a) - sure(b)],
  sure: ["Surest first", (a, b) => sure(b) - sure(a)],
  trust: ["Least trusted first", (a, b) => verdict(b) - verdict(a) || (a.z ?? 2) - (b.z ?? 2) || sure(a) - sure(b)],
  trusted: ["Most trusted first", (a, b) => verdict(a) - verdict(b) || (b.z ?? -1) - (a.z ?? -1) || sure(b) - sure(a)],
  margin: ["Closest runner-up first", (a, b) => (a.m ?? 2) - (b.m ?? 2)],
  state: ["State", (a, b) => stateName(a).localeCompare(stateName(b)) || sure(b) - sure(a)],
  large: ["Largest first", (a, b) => extent(b) - extent(a)],
  small: ["Smallest first", (a, b) => extent(a) - extent(b)],
  file: ["File name", (a, b) => byFile.compare(items[a.i].f, items[b.i].f) || items[a.i].s - items[b.i].s],
};
const byFile = new Intl.Collator(undefined, { numeric: true });

let run = {}, traits = [], items = [], loaded = new Map(), waiting = new Map();
let rows = [], shown = [], page = 0, hidden = new Set(), open = -1;
const $ = (id) => document.getElementById(id);

// ------------------------------------------------------------------------------------------------------------- data in
function SHEET_START(about, traitList, itemList) {
  run = about; traits = traitList; items = itemList;
  traits.forEach((trait, index) => { trait.index = index; });
}
function SHEET_TRAIT(index, list) {
  for (const row of list) row.t = index;
  loaded.set(index, list);
}
function load(index) {
  if (loaded.has(index)) return Promise.resolve();
  if (!waiting.has(index)) waiting.set(index, new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = traits[index].src;
    script.onload = done;
    script.onerror = () => { waiting.delete(index); failed(new Error(traits[index].src)); };
    document.head.append(script);
  }));
  return waiting.get(index);
}

// --------------------------------------------------------------------------------------------------------------- values
const readable = (name) => String(name).replaceAll("_", " ");
// Where the verdict finds nothing of the target, or the subject or the part is not there, the odds among what was named say nothing: there is no call to be sure of.
const GONE = { no_host: "subject not seen", absent: "part not seen" };
const verdictLost = (row) => run.unfound.includes(row.v);
const lost = (row) => trait(row).kind !== "distance" && (verdictLost(row) || row.r in GONE);
// The number on a card: of a part how likely its peak is right, where that was fitted; of a state its odds among those that were named.
const believed = (row) => row.d ? null : lost(row) ? 0 : trait(row).kind === "part" ? row.z ?? row.p : row.p;
const sure = (row) => row.d ? 2 : believed(row) ?? -1;
const SAID = { accept: "accepted", state: "corrected", reject: "rejected", cannot_tell: "cannot be told", region: "drawn anew" };
const review = (row) => row.d ? `${SAID[row.d] ?? row.d} by ${row.by ?? "a person"}`.replace("told by", "told, says") : null;
const extent = (row) => row.l ?? row.a ?? -1;
const trait = (row) => traits[row.t];
const title = (one) => one.kind === "distance" ? one.name : readable(one.name);
const stateName = (row) => row.b == null ? "" : trait(row).states[row.b];
const key = (row) => !row.c ? "not called" : $("trait").value === "all" ? "called" : trait(row).kind === "part" ? (lost(row) ? "not found" : "found") : trait(row).kind === "distance" ? "measured" : stateName(row);
const percent = (value) => value == null ? "–" : `${(100 * value).toFixed(value > 0.995 && value < 1 ? 1 : 0)} %`;
const number = (value) => value == null ? "–" : Number(value.toPrecision(4)).toLocaleString();
const colour = (row) => !row.c || lost(row) ? GREY : COLOURS[(row.b ?? 0) % COLOURS.length];
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) name.includes("-") ? made.setAttribute(name, value) : (made[name] = value);
  made.append(...children);
  return made;
}
function vector(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}
function call(row) {
  if (trait(row).kind === "distance") return row.c ? `${number(row.l)} ${row.n}` : "not measured";
  return row.c ? readable(stateName(row)) : row.b == null ? "not called" : `not called (${readable(stateName(row))}?)`;
}
const brief = (row) => (row.c && !lost(row)) || row.b == null ? call(row) : `${readable(stateName(row))}?`;
// What stands first: the call, or why there is none to be had. A state may bear the verdict's name ("absent"): then it is named as such.
function headline(row) {
  if (!lost(row)) return brief(row);
  if (!verdictLost(row)) return GONE[row.r];
  const name = run.verdicts[row.v];
  return trait(row).states.includes(name) ? `verdict: ${name}` : name;
}
// Several states that are likely together, where one alone is not; where they are most of all, the others are the shorter thing to say.
const either = (names) => names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
function narrowed(row) {
  if (lost(row) || !(row.lk?.length > 1)) return null;
  const known = trait(row).states, out = row.q.flatMap((value, state) => value == null || row.lk.includes(state) ? [] : [state]);
  const most = row.lk.length > out.length + 1, names = (most ? out : row.lk).map((state) => readable(known[state]));
  return `${most ? "not " : ""}${either(names)}: ${percent(row.lp)}`;
}
const told = (row) => lost(row) ? `${headline(row)} (${brief(row)})` : call(row);
const why = (row) => lost(row) ? (verdictLost(row) ? row.y : run.reasons[row.r]) ?? "" : call(row);
const MEANING = { part: "How likely the peak lies on the part", other: "Odds among the states that were named" };
const meaning = (row) => trait(row).kind === "part" && row.z != null ? MEANING.part : MEANING.other;

// -------------------------------------------------------------------------------------------------------------- picture
function stage(row, box, lazy) {
  const item = items[row.i];
  if (item.t) {
    box.append(element("img", { loading: lazy ? "lazy" : "eager", decoding: "async", alt: `${item.f}: ${title(trait(row))}, ${told(row)}`, src: item.t, width: item.tw, height: item.th }));
  } else {
    box.append(element("div", { className: "missing" }, run.missing[item.m]));
  }
  const drawing = vector("svg", { viewBox: `0 0 ${item.tw} ${item.th}`, "aria-hidden": "true" });
  drawing.style.setProperty("--colour", colour(row));
  if (row.o) for (const name of ["halo", "edge"]) drawing.append(vector("path", { d: row.o, class: row.o.endsWith("Z") ? name : `${name} open` }));
  if (row.k) drawing.append(vector("circle", { cx: row.k[0], cy: row.k[1], r: Math.max(item.tw, item.th) / 130 }));
  box.append(drawing);
}
function card(row, position) {
  const item = items[row.i];
  const made = element("button", { type: "button", className: row.c && !lost(row) ? "card" : "card open-call", tabIndex: position ? -1 : 0 });
  made.dataset.position = position;
  made.style.setProperty("--colour", colour(row));
  const picture = element("div", { className: "stage" });
  stage(row, picture, true);
  const words = element("div", { className: "words" },
    element("div", { className: "state" }, element("i"), element("span", { textContent: headline(row), title: why(row) }), element("em", { textContent: lost(row) || believed(row) == null ? "" : percent(believed(row)), title: meaning(row) })));
  if (lost(row)) words.append(element("div", { className: "asked", textContent: brief(row) }));
  else if (believed(row) != null) {
    const fill = element("div");
    fill.style.width = `${100 * believed(row)}%`;
    words.append(element("div", { className: "track" }, fill));
  }
  if (narrowed(row)) words.append(element("div", { className: "asked", textContent: narrowed(row), title: "The fewest states that together have a probability of 90 %" }));
  if (row.v != null && !verdictLost(row)) words.append(element("div", { className: row.v === run.trusted ? "verdict" : "verdict untrusted", textContent: run.verdicts[row.v], title: row.y ?? "" }));
  if (row.d) words.append(element("div", { className: "verdict", textContent: review(row), title: "What a person said stands, however sure the model was." }));
  if ($("trait").value === "all") words.append(element("div", { className: "trait", textContent: title(trait(row)) }));
  const name = item.s == null ? item.f : `${item.f}  #${item.s}`;
  words.append(element("div", { className: "file", textContent: name, title: name }));
  made.append(picture, words);
  return made;
}

// --------------------------------------------------------------------------------------------------------------- filter
function inRange(row) {
  const low = +$("low").value / 100, high = +$("high").value / 100;
  const wanted = $("verdict").value;
  if (wanted !== "any" && row.v !== +wanted) return false;
  if (row.d) return true;
  const value = believed(row);
  return value == null ? low === 0 && high === 1 : value >= low - 1e-9 && value <= high + 1e-9;
}
// Two spellings of one name are one to a searcher: letters without their accents, one Unicode form, one case.
function folded(text) {
  return text.normalize("NFKD").replace(/\p{M}/gu, "").toLocaleLowerCase();
}
function refresh() {
  const text = folded($("search").value.trim());
  const named = rows.filter((row) => !text || folded(items[row.i].f).includes(text));
  chips(named.filter(inRange));
  histogram(named);
  shown = named.filter((row) => inRange(row) && !hidden.has(key(row))).sort(SORTS[$("sort").value][1]);
  page = 0;
  $("range").textContent = `${$("low").value}–${$("high").value} %`;
  draw();
}
function draw() {
  const start = page * PER_PAGE, end = Math.min(start + PER_PAGE, shown.length);
  $("grid").replaceChildren(...shown.slice(start, end).map((row, position) => card(row, position)));
  const text = shown.length ? `${(start + 1).toLocaleString()}–${end.toLocaleString()} of ${shown.length.toLocaleString()}` : "0";
  for (const pager of document.querySelectorAll(".pager")) {
    pager.querySelector("span").textContent = text;
    pager.querySelector("[data-step='-1']").disabled = page === 0;
    pager.querySelector("[data-step='1']").disabled = end >= shown.length;
  }
  say(shown.length ? "" : "Nothing matches. Widen the confidence, switch states on, or clear the search.");
}
function say(text) { $("message").textContent = text; $("message").hidden = !text; }
function chips(counted) {
  const counts = new Map(rows.map((row) => [key(row), 0]));
  for (const row of counted) counts.set(key(row), counts.get(key(row)) + 1);
  const chosen = $("trait").value === "all" ? null : traits[+$("trait").value];
  const order = chosen ? [...chosen.states.filter((state) => counts.has(state)), ...["found", "not found", "measured"].filter((name) => counts.has(name))] : ["called"];
  if (counts.has("not called")) order.push("not called");
  const names = order.filter((name) => counts.has(name));
  // Chips stay in place while they are clicked: focus and double clicks need the same element.
  if ([...$("states").children].map((chip) => chip.dataset.state).join("\n") !== names.join("\n")) {
    $("states").replaceChildren(...names.map((name) => {
      const chip = element("button", { type: "button", className: "chip", title: "Click to hide or show; double-click to show only this" },
        element("i"), readable(name), element("b"));
      const place = chosen ? Math.max(0, chosen.states.indexOf(name)) : 0;
      chip.style.setProperty("--colour", name === "not called" ? GREY : COLOURS[place % COLOURS.length]);
      chip.dataset.state = name;
      return chip;
    }));
  }
  for (const chip of $("states").children) {
    chip.setAttribute("aria-pressed", String(!hidden.has(chip.dataset.state)));
    chip.querySelector("b").textContent = counts.get(chip.dataset.state).toLocaleString();
  }
}
function histogram(list) {
  const bins = new Array(20).fill(0);
  for (const row of list) if (believed(row) != null) bins[Math.min(19, Math.floor(believed(row) * 20))] += 1;
  const top = Math.max(1, ...bins);
  $("histogram").replaceChildren(...bins.map((count, index) => vector("rect", { x: index + 0.1, width: 0.8, y: 10 - (10 * count) / top, height: (10 * count) / top })));
}
async function choose() {
  const value = $("trait").value;
  hidden = new Set();
  $("states").replaceChildren();
  say("Loading …");
  try {
    await Promise.all((value === "all" ? traits.map((_, index) => index) : [+value]).map(load));
  } catch (error) {
    rows = []; refresh();
    say(`The file ${error.message} is missing. This page needs the folders that were written with it: send and keep them together.`);
    return;
  }
  if (value !== $("trait").value) return;
  rows = value === "all" ? traits.flatMap((_, index) => loaded.get(index)) : loaded.get(+value);
  refresh();
}
function turn(step) {
  const last = Math.max(0, Math.ceil(shown.length / PER_PAGE) - 1), to = Math.min(last, Math.max(0, page + step));
  if (to === page) return;
  page = to; draw(); scrollTo(0, 0); $("grid").firstElementChild?.focus({ preventScroll: true });
}

// --------------------------------------------------------------------------------------------------------------- detail
function show(index) {
  if (index < 0 || index >= shown.length) return;
  open = index;
  const row = shown[index], item = items[row.i], about = trait(row);
  $("detail-title").textContent = `${title(about)}: ${told(row)}`;
  $("detail-picture").replaceChildren();
  stage(row, $("detail-picture"), false);
  const body = [];
  if (row.q) {
    const odds = element("div", { className: "odds" });
    row.q.map((value, state) => [value, state]).filter(([value]) => value != null).sort((a, b) => b[0] - a[0]).forEach(([value, state]) => {
      const fill = element("div");
      fill.style.cssText = `width:${100 * value}%;--colour:${COLOURS[state % COLOURS.length]}`;
      odds.append(element("span", { textContent: readable(about.states[state]) }), element("div", { className: "track" }, fill), element("span", { textContent: percent(value) }));
    });
    body.push(element("h3", { textContent: "Which of the named states, if it is any of them" }), odds);
  }
  if (row.g) body.push(element("h3", { textContent: "What speaks for it at the peak, and what against" }), ledger(about.ledgers[row.g[0]], row.g.slice(1)));
  const facts = [["File", item.f], ["Specimen", item.s], ["Picture", `${item.w} × ${item.h} px`], ["Entity", about.entity], ["Not called", row.c ? null : run.reasons[row.r] ?? readable(row.r ?? "no reason given")],
    ["Narrowed down to", narrowed(row)], ["Reviewed", review(row)], ["Verdict", row.v == null ? null : `${run.verdicts[row.v]}: ${row.y ?? ""}`], ["In the picture", row.h == null ? null : percent(row.h)], ["Place", row.w], ["Peak is right", row.z == null ? null : percent(row.z)], ["On words or rulers", row.tx ? percent(row.tx) : null], ["Other readings agree", row.ag == null ? null : percent(row.ag)], ["Odds among what was named", row.p == null ? null : percent(row.p)], ["Margin", row.m == null ? null : percent(row.m)], ["Share of picture", row.a == null ? null : percent(row.a)],
    ["Length", row.l == null ? null : `${number(row.l)}${row.e == null ? "" : ` ± ${number(row.e)}`} ${row.n}`], ["Address", item.u], ...Object.entries(item.x ?? {})];
  const table = element("table");
  for (const [name, value] of facts) if (value != null && value !== "") table.append(element("tr", {}, element("th", { textContent: name, scope: "row" }), element("td", { textContent: value })));
  body.push(table);
  $("detail-body").replaceChildren(...body);
  $("back").disabled = index === 0; $("next").disabled = index === shown.length - 1;
  if (!$("detail").open) $("detail").showModal();
}
// A bar per text from a common zero line: what the target and each contrast contribute to the score at the peak.
function ledger(names, values) {
  const made = element("div", { className: "ledger" });
  const reach = Math.max(1e-9, ...values.filter((value) => value != null).map(Math.abs));
  names.forEach((name, place) => {
    const value = values[place], fill = element("div");
    if (value != null) fill.style.cssText = `left:${50 + Math.min(0, 50 * value / reach)}%;width:${50 * Math.abs(value) / reach}%`;
    fill.className = value > 0 ? "for" : "against";
    made.append(element("span", { textContent: readable(name), title: name }), element("div", { className: "both" }, fill), element("span", { textContent: value == null ? "–" : `${value > 0 ? "+" : ""}${value.toFixed(3)}` }));
  });
  return made;
}
function closed() {
  if (open < 0) return;
  const to = Math.floor(open / PER_PAGE);
  if (to !== page) { page = to; draw(); }
  focusCard(open - page * PER_PAGE);
  open = -1;
}

// ----------------------------------------------------------------------------------------------------------------- keys
function focusCard(position) {
  const cards = $("grid").children, target = cards[Math.max(0, Math.min(cards.length - 1, position))];
  if (!target) return;
  for (const other of $("grid").querySelectorAll("[tabindex='0']")) other.tabIndex = -1;
  target.tabIndex = 0; target.focus(); target.scrollIntoView({ block: "nearest" });
}
function columns() { return getComputedStyle($("grid")).gridTemplateColumns.split(" ").length; }
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if ($("detail").open) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) { event.preventDefault(); show(open + step); }
    return;
  }
  if (event.target.matches("input, select")) { if (event.key === "Escape") event.target.blur(); return; }
  if (event.key === "/") { event.preventDefault(); $("search").focus(); return; }
  if (event.key === "n" || event.key === "p") { turn(event.key === "n" ? 1 : -1); return; }
  const at = event.target.closest?.(".card");
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns(), Home: -1e9, End: 1e9 }[event.key];
  if (step && (at || event.target === document.body)) { event.preventDefault(); focusCard(at ? +at.dataset.position + step : 0); }
});

// ---------------------------------------------------------------------------------------------------------------- start
function saveList() {
  // As in the other tables: text that a spreadsheet would run as a formula gets an apostrophe in front, and the mark says that this is UTF-8.
  const safe = (text) => /^'*[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  const quote = (value) => `"${safe(String(value ?? "")).replaceAll('"', '""')}"`;
  const lines = [["source", "specimen", "trait", "state", "called", "probability", "likely_states", "likely_probability", "verdict", "verdict_because", "confidence", "presence", "reviewed", "reviewed_by"], ...shown.map((row) => [items[row.i].f, items[row.i].s, trait(row).name, stateName(row), row.c ? "true" : "false", row.p, (row.lk ?? []).map((state) => trait(row).states[state]).join(" | "), row.lp, row.v == null ? "" : run.verdicts[row.v], row.y, row.z, row.h, row.d, row.by])];
  const link = element("a", { download: "contact_sheet.csv", href: URL.createObjectURL(new Blob(["\ufeff", lines.map((line) => line.map(quote).join(",")).join("\r\n") + "\r\n"], { type: "text/csv" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
function start() {
  $("about").textContent = [`${run.pictures.toLocaleString()} pictures`, `${run.records.toLocaleString()} records`, run.model, run.date, `concept-cam ${run.version}`].filter(Boolean).join("  ·  ");
  const groups = [["Traits", (kind) => kind !== "part" && kind !== "distance"], ["Parts", (kind) => kind === "part"], ["Distances", (kind) => kind === "distance"]];
  for (const [heading, wanted] of groups) {
    const options = traits.filter((one) => wanted(one.kind)).map((one) => element("option", { value: one.index, textContent: title(one) }));
    if (options.length) $("trait").append(element("optgroup", { label: heading }, ...options));
  }
  if (traits.length > 1) $("trait").append(element("option", { value: "all", textContent: "All of them" }));
  run.verdicts.forEach((name, index) => $("verdict").append(element("option", { value: index, textContent: name })));
  for (const [name, [label]] of Object.entries(SORTS)) $("sort").append(element("option", { value: name, textContent: label }));
  // Frames as wide as most pictures are: long fishes would else float between empty bands.
  const ratios = items.map((item) => item.tw / item.th).sort((a, b) => a - b);
  document.documentElement.style.setProperty("--aspect", Math.min(2.4, Math.max(0.75, ratios[ratios.length >> 1] ?? 4 / 3)).toFixed(3));
  if (!traits.length) { say("This run holds no records."); return; }
  $("trait").onchange = choose;
  for (const id of ["sort", "verdict"]) $(id).onchange = refresh;
  for (const id of ["search", "low", "high"]) $(id).oninput = refresh;
  $("low").addEventListener("input", () => { if (+$("low").value > +$("high").value) { $("high").value = $("low").value; refresh(); } });
  $("high").addEventListener("input", () => { if (+$("high").value < +$("low").value) { $("low").value = $("high").value; refresh(); } });
  $("overlay").onchange = () => { document.body.dataset.overlay = $("overlay").value; };
  $("size").oninput = () => document.documentElement.style.setProperty("--size", `${$("size").value}px`);
  $("tools").onsubmit = (event) => event.preventDefault();
  $("reset").onclick = () => { $("low").value = 0; $("high").value = 100; $("search").value = ""; $("verdict").value = "any"; hidden = new Set(); refresh(); };
  $("save").onclick = saveList;
  $("states").onclick = (event) => {
    const name = event.target.closest(".chip")?.dataset.state;
    if (name == null) return;
    hidden.has(name) ? hidden.delete(name) : hidden.add(name);
    refresh();
  };
  $("states").ondblclick = (event) => {
    const name = event.target.closest(".chip")?.dataset.state;
    if (name == null) return;
    hidden = new Set(rows.map(key).filter((other) => other !== name));
    refresh();
  };
  for (const button of document.querySelectorAll(".pager button")) button.onclick = () => turn(+button.dataset.step);
  $("grid").onclick = (event) => { const at = event.target.closest(".card"); if (at) show(page * PER_PAGE + +at.dataset.position); };
  $("close").onclick = () => $("detail").close();
  $("back").onclick = () => show(open - 1);
  $("next").onclick = () => show(open + 1);
  $("detail").onclick = (event) => { if (event.target === $("detail")) $("detail").close(); };
  $("detail").addEventListener("close", closed);
  choose();
}
addEventListener("DOMContentLoaded", () => {
  if (run.pictures == null) { say("The data of this page is missing. It needs the folders that were written with it: send and keep them together."); return; }
  start();
});
