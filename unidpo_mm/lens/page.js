"use strict";
// The page reads its content once, as columns; a pair is an index into them. Its visits are the
// entries `first[i]` to `first[i + 1]` of the columns of visits, in the order of their steps.
const content = JSON.parse(document.getElementById("content").textContent);
const { pairs, curves } = content;
const values = pairs.values;
const count = pairs.pair_id.length;
const first = [0];
for (const visits of pairs.visits) first.push(first[first.length - 1] + visits);
const indexOf = new Map(pairs.pair_id.map((id, index) => [id, index]));
const lastStep = pairs.steps.reduce((a, b) => Math.max(a, b), 1);
const find = (id) => document.getElementById(id);
const state = { step: lastStep, list: 0, pair: -1, visible: [], playing: 0 };

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}
/** Return a number with three significant digits, an integer in full. */
const number = (value) => {
  if (value === null || value === undefined) return "";
  const digits = Number.isInteger(value) ? {} : { maximumSignificantDigits: 3 };
  return (value || 0).toLocaleString("en", digits); // no minus sign before 0
};
const percent = (value) => `${Math.round(100 * value)} %`;
const title = (name) => name.replaceAll("_", " ");

// ---- filters ----

function fillSelect(id, entries) {
  const names = [...new Set(entries)].sort();
  find(id).append(element("option", { value: "", textContent: "all" }));
  for (const name of names) find(id).append(element("option", { value: name, textContent: name }));
  find(id).disabled = names.length < 2;
}

function filterPairs() {
  const [source, domain] = [find("source").value, find("domain").value];
  const [low, high] = ["shortest", "longest"].map((id) => find(id).value);
  const text = find("search").value.trim().toLowerCase();
  state.visible = [];
  for (let index = 0; index < count; index++) {
    const length = pairs.chosen_length[index];
    if (source && pairs.source[index] !== source) continue;
    if (domain && pairs.domain[index] !== domain) continue;
    if ((low && length < Number(low)) || (high && length > Number(high))) continue;
    if (text && !pairs.pair_id[index].toLowerCase().includes(text)) continue;
    state.visible.push(index);
  }
  find("count").textContent = `${state.visible.length.toLocaleString("en")} of ${count.toLocaleString("en")} ${content.unit}s`;
  drawPlot();
  drawList();
  if (text && state.visible.length === 1 && state.visible[0] !== state.pair) select(state.visible[0]);
}

/** Return the last visit of a pair up to the chosen step; -1 before its first one. */
function visitOf(index) {
  let visit = -1;
  for (let n = first[index]; n < first[index + 1] && pairs.steps[n] <= state.step; n++) visit = n;
  return visit;
}

// ---- the plot ----

const canvas = find("dots");
const margin = { left: 44, right: 12, top: 12, bottom: 34 };
const limits = (list) => {
  let [low, high] = [Infinity, -Infinity];
  for (const value of list) {
    if (value === null) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (!(low <= high)) [low, high] = [0, 1];
  const pad = (high - low) * 0.06 || 0.5;
  return [low - pad, high + pad];
};
const xLimits = limits(pairs.score_margin);
const yLimits = limits(values.reward_margin);
const sorted = (list) => list.filter((value) => value !== null).sort((a, b) => a - b);
const median = (list) => (list.length ? list[Math.floor(list.length / 2)] : 0);
const boundary = median(sorted(pairs.score_margin));
const contributions = sorted(values.contribution);
const strongest = contributions.length ? contributions[Math.floor(contributions.length * 0.98)] || 1 : 1;
let dots = [];

/** Return a color from pale to strong for a share from 0 to 1. */
function color(share, dark) {
  const from = dark ? [70, 84, 104] : [203, 213, 225];
  const to = dark ? [94, 234, 212] : [15, 98, 94];
  const mix = from.map((value, n) => Math.round(value + (to[n] - value) * Math.sqrt(share)));
  return `rgb(${mix.join(",")})`;
}

/** Return a fixed offset of a pair, because many pairs have the same score margin. */
const jitter = (index) => (((index * 2654435761) >>> 0) / 2 ** 32 - 0.5) * 0.012 * (xLimits[1] - xLimits[0]);

function drawPlot() {
  const { width, height } = canvas.getBoundingClientRect();
  const scale = devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const [line, soft] = ["--line", "--soft"].map((name) => style.getPropertyValue(name).trim());
  const inner = [width - margin.left - margin.right, height - margin.top - margin.bottom];
  const x = (value) => margin.left + (inner[0] * (value - xLimits[0])) / (xLimits[1] - xLimits[0]);
  const y = (value) => margin.top + inner[1] * (1 - (value - yLimits[0]) / (yLimits[1] - yLimits[0]));
  context.font = "11px system-ui, sans-serif";
  context.fillStyle = soft;
  context.strokeStyle = line;
  context.strokeRect(margin.left, margin.top, inner[0], inner[1]);
  for (const tick of ticks(xLimits, Math.max(2, Math.floor(width / 110)))) {
    context.fillText(number(tick), x(tick) - 8, height - 18);
  }
  for (const tick of ticks(yLimits, 6)) context.fillText(number(tick), 6, y(tick) + 4);
  context.fillText("score margin (quality)", margin.left, height - 4);
  context.setLineDash([4, 4]);
  context.strokeStyle = soft;
  context.beginPath();
  context.moveTo(margin.left, y(0));
  context.lineTo(width - margin.right, y(0));
  context.moveTo(x(boundary), margin.top);
  context.lineTo(x(boundary), height - margin.bottom);
  context.stroke();
  context.setLineDash([]);
  const sums = { pairs: [0, 0, 0, 0], pull: [0, 0, 0, 0] };
  dots = [];
  for (const index of state.visible) {
    const visit = visitOf(index);
    if (visit < 0 || values.reward_margin[visit] === null) continue;
    const quality = pairs.score_margin[index] ?? xLimits[0];
    const reward = values.reward_margin[visit];
    const pull = values.contribution[visit] ?? 0;
    dots.push([x(quality + jitter(index)), y(reward), index, pull]);
    if (pairs.score_margin[index] === null) continue; // it has no quality
    const corner = (reward > 0 ? 0 : 2) + (quality >= boundary ? 1 : 0);
    sums.pairs[corner] += 1;
    sums.pull[corner] += pull * (values.weight[visit] ?? 1);
  }
  dots.sort((a, b) => a[3] - b[3]);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const radius = dots.length > 5000 ? 2 : dots.length > 800 ? 3 : 4;
  for (const [left, top, , pull] of dots) {
    context.fillStyle = color(Math.min(pull / strongest, 1), dark);
    context.beginPath();
    context.arc(left, top, radius, 0, 7);
    context.fill();
  }
  const chosen = dots.find((dot) => dot[2] === state.pair);
  if (chosen) {
    context.strokeStyle = style.getPropertyValue("--bad").trim();
    context.lineWidth = 2;
    context.beginPath();
    context.arc(chosen[0], chosen[1], radius + 4, 0, 7);
    context.stroke();
  }
  showQuadrants(sums);
}

function showQuadrants(sums) {
  const total = (list) => list.reduce((a, b) => a + b, 0) || 1;
  const names = ["learned, low quality", "learned, high quality", "not learned, low quality", "not learned, high quality"];
  find("quadrants").replaceChildren(
    ...names.map((name, corner) => {
      const shares = [sums.pairs, sums.pull].map((list) => percent(list[corner] / total(list)));
      const node = element("span", {}, element("b", { textContent: name }), element("br"), `${shares[0]} of pairs, ${shares[1]} of contributions`);
      if (corner % 2) Object.assign(node.style, { right: `${margin.right + 4}px`, textAlign: "right" });
      else node.style.left = `${margin.left + 4}px`;
      node.style[corner < 2 ? "top" : "bottom"] = `${(corner < 2 ? margin.top : margin.bottom) + 4}px`;
      return node;
    }),
  );
}

function ticks([low, high], number) {
  const raw = (high - low) / number;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= raw) || raw;
  const list = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) list.push(tick);
  return list;
}

canvas.addEventListener("click", (event) => {
  const box = canvas.getBoundingClientRect();
  const [left, top] = [event.clientX - box.left, event.clientY - box.top];
  let best = [24 ** 2, -1];
  for (const [x, y, index] of dots) {
    const distance = (x - left) ** 2 + (y - top) ** 2;
    if (distance <= best[0]) best = [distance, index];
  }
  if (best[1] >= 0) select(best[1]);
});

// ---- line charts ----

const COLORS = ["#0f766e", "#d97706", "#7c3aed", "#2563eb", "#be123c"];

/** Return a figure with a line per series; a step is marked if there is one. */
function chart(caption, steps, series, { fromZero = false } = {}) {
  const [width, height, left, bottom] = [300, 130, 34, 16];
  const all = Object.values(series).flat();
  let [low, high] = limits(all);
  if (fromZero) low = Math.min(0, ...all.filter((value) => value !== null));
  const [start, end] = [steps[0] ?? 0, Math.max(steps[steps.length - 1] ?? 1, (steps[0] ?? 0) + 1)];
  const x = (step) => left + ((width - left - 6) * (step - start)) / (end - start);
  const y = (value) => 6 + (height - bottom - 12) * (1 - (value - low) / (high - low));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", caption);
  const add = (tag, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    svg.append(node);
  };
  for (const tick of ticks([low, high], 4)) {
    add("line", { x1: left, x2: width - 6, y1: y(tick), y2: y(tick), stroke: "currentColor", opacity: 0.12 });
    add("text", { x: left - 4, y: y(tick) + 3, "text-anchor": "end" }, number(tick));
  }
  add("text", { x: left, y: height - 3 }, `step ${start}`);
  add("text", { x: width - 6, y: height - 3, "text-anchor": "end" }, `${steps[steps.length - 1] ?? ""}`);
  Object.values(series).forEach((list, n) => {
    const points = list.map((value, m) => (value === null ? null : `${x(steps[m]).toFixed(1)},${y(value).toFixed(1)}`));
    add("polyline", { points: points.filter(Boolean).join(" "), fill: "none", stroke: COLORS[n % COLORS.length], "stroke-width": 1.6 });
    if (list.length < 30) {
      for (const point of points.filter(Boolean)) {
        const [cx, cy] = point.split(",");
        add("circle", { cx, cy, r: 2.4, fill: COLORS[n % COLORS.length] });
      }
    }
  });
  const legend = element("div", { className: "legend" });
  Object.keys(series).forEach((name, n) => {
    const mark = element("i");
    mark.style.background = COLORS[n % COLORS.length];
    legend.append(element("span", {}, mark, title(name)));
  });
  return element("figure", {}, element("figcaption", { textContent: caption }), svg, legend);
}

function drawCurves() {
  const pick = (...names) => Object.fromEntries(names.filter((name) => curves[name]).map((name) => [name, curves[name]]));
  const weights = content.terms.filter((name) => name.startsWith("w_"));
  find("curves").replaceChildren(
    chart("Mean weight", curves.last_step, pick("pair_weight", ...weights), { fromZero: true }),
    chart("Mean contribution", curves.last_step, pick("contribution"), { fromZero: true }),
    chart("Mean reward margin", curves.last_step, pick("reward_margin")),
    chart("Share of pairs", curves.last_step, pick("accuracy", "effective_by_weight", "effective_by_contribution"), { fromZero: true }),
  );
}

// ---- lists ----

const COLUMNS = ["score_margin", "reward_margin", "pair_weight", "contribution"];

function listed() {
  const ranking = content.rankings[state.list];
  if (ranking) return ranking.ids.map((id) => indexOf.get(id)).filter((index) => index !== undefined);
  return [...state.visible].sort((a, b) => (values.contribution[visitOf(b)] ?? -1) - (values.contribution[visitOf(a)] ?? -1));
}

let rows = [];

const tabs = [...content.rankings, { name: "strongest now", text: "pairs that contribute most at their last visit up to the chosen step" }];
const buttons = tabs.map((tab, n) => {
  const button = element("button", { type: "button", textContent: tab.name });
  button.addEventListener("click", () => { state.list = n; drawList(); });
  return button;
});
find("tabs").append(...buttons);
const nonempty = content.rankings.findIndex((ranking) => ranking.ids.length);
state.list = nonempty < 0 ? content.rankings.length : nonempty;

function drawList() {
  buttons.forEach((button, n) => button.setAttribute("aria-pressed", n === state.list));
  find("meaning").textContent = tabs[state.list].text;
  const passing = new Set(state.visible);
  rows = listed().filter((index) => passing.has(index)).slice(0, 50);
  find("titles").replaceChildren(
    element("tr", {}, ...["pair", "source", "tokens", "step", ...COLUMNS].map((name) => element("th", { scope: "col", textContent: title(name) }))),
  );
  find("rows").replaceChildren(
    ...rows.map((index) => {
      const visit = visitOf(index);
      const cells = [
        pairs.pair_id[index], pairs.source[index], number(pairs.chosen_length[index]), pairs.steps[visit] ?? "",
        number(pairs.score_margin[index]), ...COLUMNS.slice(1).map((name) => number(values[name][visit])),
      ];
      const row = element("tr", {}, ...cells.map((text) => element("td", { textContent: text })));
      row.setAttribute("aria-selected", index === state.pair);
      row.addEventListener("click", () => select(index));
      return row;
    }),
  );
  if (!rows.length) find("rows").append(element("tr", {}, element("td", { textContent: "no pair", colSpan: 8 })));
}

// ---- a pair ----

function select(index) {
  state.pair = index;
  const excerpt = content.excerpts[pairs.pair_id[index]];
  const range = [first[index], first[index + 1]];
  const path = (name) => values[name].slice(...range);
  const parts = [element("h2", { id: "detail-title", textContent: "A pair" })];
  if (excerpt) {
    for (const source of excerpt.images) parts.push(element("img", { src: source, alt: "image of the prompt" }));
    parts.push(element("p", { className: "prompt", textContent: excerpt.prompt }));
    for (const side of ["chosen", "rejected"]) {
      const score = pairs[`score_${side}`][index];
      const label = `${side}${score === null ? "" : `, score ${number(score)}`}, ${number(pairs[`${side}_length`][index]) || "?"} tokens`;
      parts.push(element("div", { className: `response ${side}` }, element("b", { textContent: label }), excerpt[side]));
    }
  } else {
    parts.push(element("p", { className: "hint", textContent: "The page has no texts and images of this pair." }));
  }
  const steps = pairs.steps.slice(...range);
  const terms = Object.fromEntries(content.terms.map((name) => [name, path(name)]));
  parts.push(
    chart("Reward margin", steps, { reward_margin: path("reward_margin") }),
    chart("Contribution and weights", steps, { contribution: path("contribution"), ...terms }, { fromZero: true }),
    element("p", { className: "id", textContent: `${pairs.pair_id[index]} · ${pairs.source[index]} · ${steps.length === 1 ? "1 visit" : `${steps.length} visits`}${excerpt ? ` · ${excerpt.where}` : ""}` }),
  );
  find("detail").replaceChildren(...parts);
  drawPlot();
  drawList();
}

function move(by) {
  if (!rows.length) return;
  const at = rows.indexOf(state.pair);
  select(rows[at < 0 ? 0 : Math.min(Math.max(at + by, 0), rows.length - 1)]);
}

// ---- time and keys ----

function setStep(step) {
  state.step = Math.min(Math.max(Number(step), 1), lastStep);
  find("step").value = state.step;
  find("now").textContent = `step ${state.step} of ${lastStep}`;
  drawPlot();
  drawList();
}

function play() {
  clearInterval(state.playing);
  state.playing = state.playing ? 0 : setInterval(() => {
    if (state.step >= lastStep) play();
    else setStep(state.step + Math.max(1, Math.round(lastStep / 60)));
  }, 120);
  if (state.playing && state.step >= lastStep) setStep(1);
  find("play").textContent = state.playing ? "Pause" : "Play";
}

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const by = Math.max(1, Math.round(lastStep / 60));
  const actions = {
    ArrowLeft: () => setStep(state.step - by), ArrowRight: () => setStep(state.step + by),
    ArrowUp: () => move(-1), ArrowDown: () => move(1), "/": () => find("search").focus(),
    " ": () => event.target.matches("button") || play(),
  };
  if (!actions[event.key] || (event.key === " " && event.target.matches("button"))) return;
  event.preventDefault();
  actions[event.key]();
});

find("run").textContent = `${content.title}: ${content.loss.name}, ${lastStep.toLocaleString("en")} steps`;
for (const alarm of content.alarms) find("alarms").append(element("li", { textContent: `${alarm.name}: ${alarm.message}. ${alarm.advice}.` }));
find("rules").textContent = content.rules.join(" ");
fillSelect("source", pairs.source);
fillSelect("domain", pairs.domain);
find("step").max = lastStep;
find("play").addEventListener("click", play);
find("step").addEventListener("input", (event) => setStep(event.target.value));
for (const id of ["source", "domain", "shortest", "longest", "search"]) find(id).addEventListener("input", filterPairs);
find("filters").addEventListener("submit", (event) => event.preventDefault());
addEventListener("resize", drawPlot);
state.visible = pairs.pair_id.map((_, index) => index);
setStep(lastStep);
filterPairs();
drawCurves();
if (rows.length) select(rows[0]);
else if (count) select(0);
