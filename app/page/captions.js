// Shows what comes over the stream beside this page; engine/caption_lines.py says which messages there are.
"use strict";

const RETRY_MS = 1000;
const KEPT_LINES = 12;
const WAITING = "Waiting for sottovoce serve";
const PLACES = { top: "flex-start", middle: "center", bottom: "flex-end" };

const asked = new URLSearchParams(location.search);
const captions = document.getElementById("captions");
const state = document.getElementById("state");
const lines = new Map(); // id -> {source, text}, in the order of their ids
let tails = {};
let fading = 0;

// What the address asks for; what makes no sense is left as it is.
function number(name, least, most) {
  const value = Number(asked.get(name));
  return asked.has(name) && value >= least && value <= most ? value : null;
}

function colour(...names) {
  const value = names.map((name) => asked.get(name)).find((found) => found) ?? "";
  return [value, "#" + value].find((form) => CSS.supports("color", form)) ?? null;
}

function set(variable, value) {
  if (value !== null) document.documentElement.style.setProperty(variable, value);
}

const size = number("size", 6, 400);
const fade_s = number("fade", 0.5, 3600);
set("--size", size && size + "px");
set("--lines", number("lines", 1, 20));
set("--colour", colour("colour", "color"));
set("--background", colour("background"));
set("--outline", colour("background") && "none"); // it is there to be read over a picture
set("--place", PLACES[asked.get("position")] ?? null);

function span(text, kind) {
  const made = document.createElement("span");
  made.className = kind;
  made.textContent = text;
  return made;
}

function draw() {
  const rows = [...lines.values()].map((line) => ({ source: line.source, parts: [span(line.text, "final")] }));
  const last = rows[rows.length - 1];
  for (const [source, text] of Object.entries(tails)) {
    if (!text) continue;
    if (last && last.source === source) last.parts.push(" ", span(text, "tentative"));
    else rows.push({ source, parts: [span(text, "tentative")] });
  }
  captions.replaceChildren(...rows.map(({ source, parts }) => {
    const row = document.createElement("p");
    if (source === "others") row.className = "others";
    const said = span("", "said");
    said.append(...parts);
    row.append(said);
    return row;
  }));
}

// Words have come: they are seen, and from now on it is counted until they fade.
function wake() {
  captions.classList.remove("gone");
  clearTimeout(fading);
  if (fade_s) fading = setTimeout(() => captions.classList.add("gone"), 1000 * fade_s);
}

function take(message) {
  if (message.type === "state") say(message.said);
  if (message.type !== "captions") return;
  if (message.reset) lines.clear();
  for (const line of message.lines) lines.set(line.id, line);
  for (const id of [...lines.keys()].slice(0, -KEPT_LINES)) lines.delete(id);
  tails = message.tentative;
  draw();
  if (message.lines.length || Object.values(tails).some(Boolean)) wake();
}

function say(text) {
  state.textContent = asked.get("status") === "off" ? "" : text;
}

function connect() {
  const address = new URL("stream", location.href);
  address.protocol = "ws:";
  const stream = new WebSocket(address);
  stream.onmessage = (event) => take(JSON.parse(event.data));
  stream.onclose = () => {
    tails = {};
    draw();
    say(WAITING);
    setTimeout(connect, RETRY_MS);
  };
}

connect();
