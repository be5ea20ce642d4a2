// The page holds no state of its own: every (re)connection begins with a snapshot of the board.

const RECENT = 60, SILENCE_MS = 45_000;
const LABELS = { up: "Up", slow: "Slow", failing: "Failing", down: "Down", paused: "Paused", none: "Waiting" };
const $ = (id) => document.getElementById(id);
const rows = new Map(); // name -> { target, status, recent, card, seen }

// The connection

let source, watchdog;

function connect() {
  source?.close();
  source = new EventSource("/events");
  on("snapshot", showSnapshot);
  on("target", (row) => { addRow(row); summarise(); });
  on("removed", removeRow);
  on("result", showResult);
  on("heartbeat", () => {});
  source.onerror = () => {
    connection("reconnecting");
    // The browser tries again by itself, unless it was answered with something else than a stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  };
  listenFor(SILENCE_MS);
}

function on(name, show) {
  source.addEventListener(name, (event) => {
    connection("live");
    listenFor(SILENCE_MS);
    show(JSON.parse(event.data));
  });
}

function listenFor(ms) { // a connection can be dead without an error: the server is never silent
  clearTimeout(watchdog);
  watchdog = setTimeout(() => { connection("reconnecting"); connect(); }, ms);
}

function connection(state) {
  $("connection").dataset.state = state;
  $("cards").dataset.stale = state !== "live"; // what is shown may not be so any more
  $("connection").textContent = state;
}

// What has come

function showSnapshot({ now, rows: all }) {
  rows.clear();
  $("cards").replaceChildren();
  const skew = Date.now() / 1000 - now;
  for (const row of all) addRow(row, skew);
  showEmpty();
  summarise();
}

function showEmpty() {
  if (rows.size) return;
  const empty = Object.assign(document.createElement("p"), { className: "empty" });
  empty.textContent = "Nothing to watch yet: add a target.";
  $("cards").append(empty);
}

function removeRow({ name }) {
  rows.get(name)?.card.remove();
  rows.delete(name);
  dropEmptyGroups();
  showEmpty();
  summarise();
}

function addRow({ target, status, recent }, skew = 0) {
  $("cards").querySelector(".empty")?.remove();
  const card = $("card").content.firstElementChild.cloneNode(true);
  const row = { target, status, recent, card, seen: recent.length ? recent.at(-1).at + skew : null };
  const before = rows.get(target.name);
  rows.set(target.name, row);
  text(card, ".name", target.name);
  text(card, ".url", target.url);
  card.querySelector(".url").title = target.url;
  const link = card.querySelector(".history");
  link.href = `/history/${encodeURIComponent(target.name)}`;
  link.onclick = (event) => { event.preventDefault(); showHistory(target.name, link.href); };
  const button = card.querySelector(".check");
  button.setAttribute("aria-label", `Check ${target.name}`);
  button.onclick = () => check(button, [target.name]);
  button.disabled = target.paused;
  const edit = card.querySelector(".edit");
  edit.setAttribute("aria-label", `Edit ${target.name}`);
  edit.onclick = () => openForm(target);
  if (before?.target.group === target.group) before.card.replaceWith(card);
  else {
    before?.card.remove();
    gridOf(target.group).append(card);
    dropEmptyGroups();
  }
  drawRow(row);
}

function gridOf(group) { // made where it is missing; groups are in the order of their names
  const sections = [...$("cards").children];
  let section = sections.find((other) => other.dataset.group === group);
  if (!section) {
    section = $("group").content.firstElementChild.cloneNode(true);
    section.dataset.group = group;
    text(section, ".group-name", group);
    section.querySelector(".group-name").hidden = !group;
    $("cards").insertBefore(section, sections.find((other) => other.dataset.group > group) ?? null);
  }
  return section.querySelector(".cards");
}

function dropEmptyGroups() {
  for (const section of document.querySelectorAll(".group")) if (!section.querySelector(".card")) section.remove();
}

function showResult({ result, status }) {
  const row = rows.get(result.target);
  if (!row) return;
  row.status = status;
  row.recent = [...row.recent, result].slice(-RECENT);
  row.seen = Date.now() / 1000;
  drawRow(row);
  summarise();
}

// Drawing. Text goes in as text, never as markup: names and URLs are whatever somebody typed.

const text = (card, selector, value) => { card.querySelector(selector).textContent = value; };
const labelOf = ({ target, status: { state, failed } }) =>
  LABELS[state] + (state === "failing" ? ` ${failed} of ${target.failures}` : "");

function drawRow(row) {
  const { card, recent } = row, last = recent.at(-1);
  card.dataset.state = row.status.state;
  text(card, ".badge", labelOf(row));
  if (last) {
    const failed = last.state === "down";
    const times = recent.filter((result) => result.state !== "down").map((result) => result.seconds);
    text(card, ".latency", failed ? last.status ?? "–" : duration(last.seconds));
    text(card, ".latency-caption", failed ? (last.status ? "status" : "no answer") : `response, peak ${duration(Math.max(...times))}`);
    text(card, ".uptime", percent(times.length / recent.length));
    text(card, ".uptime-caption", `of ${recent.length} ${recent.length === 1 ? "check" : "checks"} good`);
    const error = card.querySelector(".error");
    error.hidden = !last.error;
    error.textContent = last.error;
  }
  drawSpark(card.querySelector(".spark"), recent);
  drawAge(row);
}

function drawSpark(svg, recent) {
  const step = 300 / RECENT, first = RECENT - recent.length, floor = 54;
  const answered = recent.filter((result) => result.state !== "down").map((result) => result.seconds);
  const top = Math.max(...answered, 0.001) * 1.1;
  let line = "", area = "", run = [];
  const flush = () => { // the line breaks where there was no answer
    if (run.length) {
      const points = run.length > 1 ? run : [[run[0][0] - 1, run[0][1]], [run[0][0] + 1, run[0][1]]];
      const path = points.map((point) => point.map((n) => n.toFixed(1)).join(" ")).join("L");
      line += `M${path}`;
      area += `M${points[0][0]} ${floor}L${path}L${points.at(-1)[0]} ${floor}Z`;
    }
    run = [];
  };
  const ticks = document.createDocumentFragment();
  for (let slot = 0; slot < RECENT; slot++) {
    const result = recent[slot - first], x = slot * step;
    ticks.append(svgElement("rect", { x: x + 0.6, y: 61, width: step - 1.2, height: 9, rx: 1, class: result?.state ?? "none" }));
    if (!result) continue;
    if (result.state === "down") flush();
    else run.push([x + step / 2, floor - (result.seconds / top) * (floor - 4)]);
  }
  flush();
  svg.querySelector(".line").setAttribute("d", line);
  svg.querySelector(".area").setAttribute("d", area);
  svg.querySelector(".ticks").replaceChildren(ticks);
  const range = answered.length ? `${duration(Math.min(...answered))} to ${duration(Math.max(...answered))}` : "no answer";
  svg.setAttribute("aria-label", `The last ${recent.length} checks: ${range}, ${recent.length - answered.length} failed`);
}

function svgElement(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function drawAge({ card, seen }) {
  if (seen === null) return;
  const age = Math.max(0, Math.round(Date.now() / 1000 - seen));
  const [value, unit] = age < 60 ? [age, "s"] : age < 3600 ? [Math.floor(age / 60), "min"] : [Math.floor(age / 3600), "h"];
  text(card, ".age", age < 2 ? "just now" : `${value} ${unit} ago`);
}

function summarise() {
  const count = { up: 0, slow: 0, failing: 0, down: 0, none: 0, paused: 0 };
  for (const row of rows.values()) count[row.status.state]++;
  const all = rows.size, known = all - count.none - count.paused;
  let summary = "Status board";
  if (known) {
    summary = count.down ? `${count.down} of ${all} down`
      : count.failing ? `${count.failing} of ${all} failing` : count.slow ? `All up, ${count.slow} slow` : "All systems up";
  }
  document.querySelector(".top").dataset.state = count.down ? "down" : "up";
  if ($("summary").textContent !== summary) $("summary").textContent = summary;
  const parts = Object.entries(count).filter(([, n]) => n).map(([state, n]) => `${n} ${LABELS[state].toLowerCase()}`);
  $("counts").textContent = `${all} ${all === 1 ? "target" : "targets"}${all ? ": " : ""}${parts.join(", ")}`;
  document.title = known ? `${summary} · Status board` : summary;
}

function duration(seconds) {
  if (seconds >= 1) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  return `${seconds < 0.01 ? (seconds * 1000).toFixed(1) : Math.round(seconds * 1000)} ms`;
}

const percent = (share) => `${share === 1 ? 100 : Math.min(99.9, share * 100).toFixed(1)} %`;

// What a person may do

async function check(button, names) {
  if (!names.length) return;
  button.disabled = true;
  try {
    await fetch(`/check?${new URLSearchParams(names.map((name) => ["target", name]))}`);
  } catch {
    connection("reconnecting"); // the results come by the stream, and so does the news that it is back
  } finally {
    button.disabled = false;
  }
}

function drawSpan({ name, checks, good, bars }) {
  const section = $("span").content.firstElementChild.cloneNode(true);
  const dated = bars.at(-1).start - bars[0].start > 86_400;
  const label = ({ start }) => new Date(start * 1000).toLocaleString([], dated ? { month: "short", day: "numeric" } : { hour: "2-digit", minute: "2-digit" });
  const width = 300 / bars.length;
  text(section, ".span-name", `Last ${name}`);
  text(section, ".span-share", checks ? `${percent(good / checks)} up` : "not checked");
  section.querySelector("svg").setAttribute("aria-label", `${good} of ${checks} checks good`);
  section.querySelector(".ticks").replaceChildren(...bars.map((bar, index) => {
    const share = bar.good / bar.checks; // not a number where there was no check
    const state = share === 1 ? "up" : share >= 0.95 ? "slow" : share >= 0 ? "down" : "none";
    const rect = svgElement("rect", { x: index * width + 0.5, y: 0, width: width - 1, height: 20, rx: 1, class: state });
    const title = svgElement("title", {});
    title.textContent = `${new Date(bar.start * 1000).toLocaleString()}: ${bar.good} of ${bar.checks} checks good`;
    rect.append(title);
    return rect;
  }));
  const axis = [label(bars[0]), label(bars[bars.length / 2]), "now"];
  section.querySelectorAll(".axis span").forEach((span, index) => { span.textContent = axis[index]; });
  return section;
}

const notPaused = () => [...rows.values()].filter((row) => !row.target.paused).map((row) => row.target.name);

async function showHistory(name, url) {
  const cells = (result) => [
    new Date(result.at * 1000).toLocaleString(),
    LABELS[result.state],
    result.state === "down" ? result.error : duration(result.seconds),
  ];
  const line = (result) => {
    const row = document.createElement("tr");
    row.dataset.state = result.state;
    for (const cell of cells(result)) row.insertCell().textContent = cell;
    return row;
  };
  $("log-title").textContent = name;
  $("badge").href = $("badge").firstElementChild.src = `/targets/${encodeURIComponent(name)}/badge.svg`;
  const [response, spans] = await Promise.all([fetch(url), fetch(`/availability/${encodeURIComponent(name)}`)]);
  $("spans").replaceChildren(...(spans.ok ? (await spans.json()).map(drawSpan) : []));
  $("log-rows").replaceChildren(...(response.ok ? (await response.json()).map(line) : []));
  $("log").showModal();
}

// The form is for a new target, or for one that is on the board: its name stays.

let edited = null;

function openForm(target) {
  const form = $("form"), field = (name) => form.elements.namedItem(name);
  edited = target;
  const token = field("token").value; // asked for once
  form.reset();
  field("token").value = token;
  problem("");
  field("name").disabled = Boolean(target);
  if (target) {
    for (const name of ["name", "url", "timeout", "slow_after", "failures", "group"]) field(name).value = target[name];
    field("paused").checked = target.paused;
  }
  $("dialog-title").textContent = target ? "Edit a target" : "Add a target";
  $("save").textContent = target ? "Save" : "Add and check";
  $("delete").hidden = !target;
  $("dialog").showModal();
}

function save(event) {
  event.preventDefault();
  const { token, paused, ...body } = Object.fromEntries(new FormData($("form")));
  for (const name of ["timeout", "slow_after", "failures"]) body[name] = Number(body[name]);
  body.paused = Boolean(paused);
  if (edited) change("PUT", addressOf(edited), body);
  else change("POST", "/targets", body);
}

function remove() {
  if (confirm(`Delete ${edited.name} and its history?`)) change("DELETE", addressOf(edited));
}

const addressOf = (target) => `/targets/${encodeURIComponent(target.name)}`;

async function change(method, address, body) { // what has changed comes by the stream
  const headers = { "Content-Type": "application/json" };
  const token = $("form").elements.namedItem("token").value;
  if (token) headers.Authorization = `Bearer ${token}`;
  try {
    const response = await fetch(address, { method, headers, body: JSON.stringify(body) });
    if (response.ok) return $("dialog").close();
    if (response.status === 401) $("token").hidden = false;
    problem(reason((await response.json()).detail));
  } catch {
    problem("The board does not answer.");
  }
}

function reason(detail) {
  if (!Array.isArray(detail)) return String(detail);
  return detail.map(({ loc, msg }) => `${loc.at(-1)}: ${msg.replace(/^Value error, /, "")}`).join("; ");
}

function problem(message) {
  $("problem").hidden = !message;
  $("problem").textContent = message;
}

$("check-all").onclick = (event) => check(event.currentTarget, notPaused());
$("add").onclick = () => openForm(null);
$("delete").onclick = remove;
$("cancel").onclick = () => $("dialog").close();
$("log-close").onclick = () => $("log").close();
$("form").onsubmit = save;
setInterval(() => rows.forEach(drawAge), 1000);
connect();
