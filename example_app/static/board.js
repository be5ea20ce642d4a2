// The page holds no state of its own: every (re)connection begins with a snapshot of the board.

const RECENT = 60, SILENCE_MS = 45_000;
const LABELS = { up: "Up", slow: "Slow", down: "Down", none: "Waiting" };
const $ = (id) => document.getElementById(id);
const rows = new Map(); // name -> { target, recent, card, seen }

// The connection

let source, watchdog;

function connect() {
  source?.close();
  source = new EventSource("/events");
  on("snapshot", showSnapshot);
  on("target", (row) => { addRow(row); summarise(); });
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
  $("connection").textContent = state;
}

// What has come

function showSnapshot({ now, rows: all }) {
  rows.clear();
  $("cards").replaceChildren();
  const skew = Date.now() / 1000 - now;
  for (const row of all) addRow(row, skew);
  if (!all.length) {
    const empty = Object.assign(document.createElement("p"), { className: "empty" });
    empty.textContent = "Nothing to watch yet: add a target.";
    $("cards").append(empty);
  }
  summarise();
}

function addRow({ target, recent }, skew = 0) {
  $("cards").querySelector(".empty")?.remove();
  const card = $("card").content.firstElementChild.cloneNode(true);
  const row = { target, recent, card, seen: recent.length ? recent.at(-1).at + skew : null };
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
  $("cards").append(card);
  drawRow(row);
}

function showResult(result) {
  const row = rows.get(result.target);
  if (!row) return;
  row.recent = [...row.recent, result].slice(-RECENT);
  row.seen = Date.now() / 1000;
  drawRow(row);
  summarise();
}

// Drawing. Text goes in as text, never as markup: names and URLs are whatever somebody typed.

const text = (card, selector, value) => { card.querySelector(selector).textContent = value; };
const stateOf = (row) => row.recent.at(-1)?.state ?? "none";

function drawRow(row) {
  const { card, recent } = row, last = recent.at(-1), state = stateOf(row);
  card.dataset.state = state;
  text(card, ".badge", LABELS[state]);
  if (last) {
    const times = recent.filter((result) => result.state !== "down").map((result) => result.seconds);
    text(card, ".latency", state === "down" ? last.status ?? "–" : duration(last.seconds));
    text(card, ".latency-caption", state === "down" ? (last.status ? "status" : "no answer") : `response, peak ${duration(Math.max(...times))}`);
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
    const tick = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const shape = { x: x + 0.6, y: 61, width: step - 1.2, height: 9, rx: 1, class: result?.state ?? "none" };
    for (const [name, value] of Object.entries(shape)) tick.setAttribute(name, value);
    ticks.append(tick);
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

function drawAge({ card, seen }) {
  if (seen === null) return;
  const age = Math.max(0, Math.round(Date.now() / 1000 - seen));
  const [value, unit] = age < 60 ? [age, "s"] : age < 3600 ? [Math.floor(age / 60), "min"] : [Math.floor(age / 3600), "h"];
  text(card, ".age", age < 2 ? "checked just now" : `checked ${value} ${unit} ago`);
}

function summarise() {
  const count = { up: 0, slow: 0, down: 0, none: 0 };
  for (const row of rows.values()) count[stateOf(row)]++;
  const all = rows.size, known = all - count.none;
  let summary = "Status board";
  if (known) {
    summary = count.down ? `${count.down} of ${all} down` : count.slow ? `All up, ${count.slow} slow` : "All systems up";
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
  const response = await fetch(url);
  $("log-rows").replaceChildren(...(response.ok ? (await response.json()).map(line) : []));
  $("log").showModal();
}

async function add(event) {
  event.preventDefault();
  const { name, url, token } = Object.fromEntries(new FormData($("form")));
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  try {
    const response = await fetch("/targets", { method: "POST", headers, body: JSON.stringify({ name, url }) });
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

$("check-all").onclick = (event) => check(event.currentTarget, [...rows.keys()]);
$("add").onclick = () => { $("form").reset(); problem(""); $("dialog").showModal(); };
$("cancel").onclick = () => $("dialog").close();
$("log-close").onclick = () => $("log").close();
$("form").onsubmit = add;
setInterval(() => rows.forEach(drawAge), 1000);
connect();
