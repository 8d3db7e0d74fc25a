const LOG_ROWS = 500;
// Rows added to the log in one go. Past this many the middle of the batch is
// left out and counted, so a fast echo can neither freeze the page nor fill memory.
const BATCH_ROWS = 32;
const DRAW_MS = 100;
const CALM_MS = 500;
const RATE_MS = 250;
const TEXT_PREVIEW = 400;
const BYTE_PREVIEW = 32;
const ECHO_WINDOW = 1000;
const PIPELINE = 64;
const TICK_MS = 4;
// A server that does not echo must not make the list of awaited echoes, or the
// browser's send buffer, grow without end.
const AWAITED_LIMIT = 10_000;
const BUFFER_LIMIT = 4 << 20;
const FILE_LIMIT = 64 << 20;

const CLOSE_CODES = {
  1000: "normal closure",
  1001: "going away",
  1002: "protocol error",
  1003: "unsupported data",
  1005: "no code given",
  1006: "no close frame: connection failed or was cut",
  1007: "invalid payload data",
  1008: "policy violation",
  1009: "message too big",
  1010: "extension missing",
  1011: "internal error",
  1012: "service restart",
  1013: "try again later",
  1014: "bad gateway",
};

const $ = (id) => document.getElementById(id);
const encoder = new TextEncoder();
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

const integer = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const decimal = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

function formatBytes(bytes) {
  let unit = 0;
  for (; bytes >= 1024 && unit < 4; unit++) bytes /= 1024;
  return `${decimal.format(bytes)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

// Browsers coarsen their clock, some to a whole millisecond. Measured, so that
// the page never shows more digits than it knows.
const clockStep = (() => {
  let step = Infinity;
  const start = performance.now();
  for (let last = start, now = last; now - start < 5; last = now) {
    now = performance.now();
    if (now > last) step = Math.min(step, now - last);
  }
  return Math.min(Math.max(step, 0.005), 1);
})();
const clockDigits = Math.max(0, Math.min(2, Math.round(-Math.log10(clockStep))));

function formatMs(ms) {
  if (ms < clockStep / 2) return `<${Number(clockStep.toPrecision(1))} ms`;
  return `${ms.toFixed(ms < 10 ? clockDigits : ms < 100 ? Math.min(1, clockDigits) : 0)} ms`;
}

// ---------------------------------------------------------------- frame loop

let frameAsked = false;
let drawn = -Infinity;
let stale = true;

function askFrame() {
  if (frameAsked) return;
  frameAsked = true;
  requestAnimationFrame(frame);
}

// Log, plot and figures are drawn together, so that they always agree.
function frame(now) {
  frameAsked = false;
  if (now - drawn >= (reducedMotion.matches ? CALM_MS : DRAW_MS)) {
    drawn = now;
    if (pending.length) drawLog();
    if (stale) {
      stale = false;
      const sorted = echoes.slice(0, Math.min(echoCount, ECHO_WINDOW)).sort();
      drawPlot(sorted);
      drawFigures(sorted);
    }
  }
  if (pending.length || stale) askFrame();
}

function drawAtOnce() {
  stale = true;
  drawn = -Infinity;
  askFrame();
}

// ----------------------------------------------------------------------- log

const log = $("log");
const logView = $("log-view");
let pending = [];
let pendingLeftOut = 0;
let leftOut = 0;
let following = true;

function record(direction, kind, payload, size, rtt) {
  if (pending.length >= BATCH_ROWS) {
    const middle = pending.findIndex((row, at) => at >= BATCH_ROWS / 2 && row.direction !== "event");
    pending.splice(middle, 1);
    pendingLeftOut++;
  }
  pending.push({ time: Date.now(), direction, kind, payload, size, rtt });
  askFrame();
}

function clock(time) {
  const date = new Date(time);
  const two = (n) => String(n).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

function preview(payload) {
  if (typeof payload === "string") {
    if (payload.length <= TEXT_PREVIEW) return payload;
    // A cut between the halves of a surrogate pair would show a broken character.
    const head = payload.slice(0, TEXT_PREVIEW).replace(/[\uD800-\uDBFF]$/, "");
    return `${head} … ${integer.format(payload.length - head.length)} more`;
  }
  const head = new Uint8Array(payload, 0, Math.min(BYTE_PREVIEW, payload.byteLength));
  const hex = Array.from(head, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  const rest = payload.byteLength - head.length;
  return rest ? `${hex} … ${integer.format(rest)} more` : hex;
}

function cell(name, text) {
  const span = document.createElement("span");
  span.className = name;
  span.textContent = text;
  return span;
}

const MARKS = { sent: "↑", received: "↓", event: "·" };

function logRow(row) {
  const item = document.createElement("li");
  item.dataset.direction = row.direction;
  item.dataset.kind = row.kind;
  item.append(
    cell("time", clock(row.time)), " ",
    cell("direction", `${MARKS[row.direction]} ${row.direction}`), " ",
    cell("kind", row.kind), " ",
    cell("size", row.size === undefined ? "" : formatBytes(row.size)), " ",
    cell("rtt", row.rtt === undefined ? "" : formatMs(row.rtt)), " ",
    cell("payload", preview(row.payload)),
  );
  return item;
}

function gapRow(count) {
  const item = document.createElement("li");
  item.dataset.direction = "gap";
  item.textContent = `${integer.format(count)} frames left out`;
  return item;
}

function drawLog() {
  const rows = pending.map(logRow);
  if (pendingLeftOut) {
    rows.splice(BATCH_ROWS / 2, 0, gapRow(pendingLeftOut));
    leftOut += pendingLeftOut;
  }
  pending = [];
  pendingLeftOut = 0;
  log.append(...rows);
  while (log.childElementCount > LOG_ROWS) log.firstElementChild.remove();
  $("log-empty").hidden = true;
  $("left-out").textContent = `last ${LOG_ROWS} rows` + (leftOut ? ` · ${integer.format(leftOut)} left out` : "");
  if (following) logView.scrollTop = logView.scrollHeight;
}

logView.addEventListener("scroll", () => {
  following = logView.scrollHeight - logView.scrollTop - logView.clientHeight < 12;
  $("newest").hidden = following;
}, { passive: true });

$("newest").addEventListener("click", () => {
  logView.scrollTop = logView.scrollHeight;
  logView.focus();
});

$("clear").addEventListener("click", () => {
  log.replaceChildren();
  pending = [];
  pendingLeftOut = leftOut = 0;
  following = true;
  $("newest").hidden = true;
  $("left-out").textContent = "";
  $("log-empty").hidden = false;
});

// ------------------------------------------------------- figures and the plot

const echoes = new Float64Array(ECHO_WINDOW);
let echoCount = 0;
const totals = { sent: 0, received: 0, bytesSent: 0, bytesReceived: 0 };
let samples = [];

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];

function drawFigures(sorted) {
  const show = (id, q) => {
    const [number, unit = ""] = sorted.length ? formatMs(quantile(sorted, q)).split(" ") : ["–"];
    const small = document.createElement("small");
    small.textContent = ` ${unit}`;
    $(id).replaceChildren(number, small);
  };
  show("rtt-min", 0);
  show("rtt-median", 0.5);
  show("rtt-p99", 0.99);
  show("rtt-max", 1);
  $("total-sent").textContent = integer.format(totals.sent);
  $("total-received").textContent = integer.format(totals.received);
  $("bytes-sent").textContent = formatBytes(totals.bytesSent);
  $("bytes-received").textContent = formatBytes(totals.bytesReceived);
}

// Messages a second, over the last second or so.
setInterval(() => {
  const now = { time: performance.now(), sent: totals.sent, received: totals.received };
  samples.push(now);
  while (samples.length > 2 && now.time - samples[0].time > 1100) samples.shift();
  const seconds = (now.time - samples[0].time) / 1000;
  const rate = (name) => integer.format(seconds ? (now[name] - samples[0][name]) / seconds : 0);
  $("rate-sent").textContent = rate("sent");
  $("rate").textContent = rate("received");
}, RATE_MS);

$("reset").addEventListener("click", () => {
  echoCount = 0;
  for (const name in totals) totals[name] = 0;
  samples = [];
  drawAtOnce();
});

const canvas = $("plot");
const context = canvas.getContext("2d");
let colours;

function readColours() {
  const style = getComputedStyle(canvas);
  colours = Object.fromEntries(["ink", "muted", "line", "received"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
  colours.font = `11px ${style.getPropertyValue("--mono")}`;
  drawAtOnce();
}

function drawPlot(sorted) {
  const scale = canvas.width / (canvas.clientWidth || 1);
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const count = sorted.length;
  $("plot-empty").hidden = count > 0;

  // A zero has no logarithm: what the clock cannot tell from nothing sits half a step up.
  const floor = clockStep / 2;
  const log10 = (ms) => Math.log10(Math.max(ms, floor));
  // Whole decades, at least two. A clock that ticks in 0.1 ms may well say 0.0999.
  const high = count ? Math.ceil(log10(sorted[count - 1]) + 0.02) : 1;
  const low = Math.min(count ? Math.floor(log10(sorted[0]) + 0.02) : -1, high - 2);

  const left = 52;
  const top = 8;
  const bottom = height - 8;
  const histogram = Math.min(110, width * 0.18);
  const right = width - histogram - 12;
  const level = (power) => bottom - ((power - low) / (high - low)) * (bottom - top);
  const y = (ms) => level(log10(ms));

  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = colours.font;
  context.textAlign = "right";
  context.textBaseline = "middle";

  // Lines cover whole device pixels, or they would blur.
  const thickness = Math.max(1, Math.round(scale));
  context.lineWidth = thickness / scale;
  const line = (at, colour, dashes = []) => {
    at = (Math.round(at * scale) + (thickness % 2) / 2) / scale;
    context.strokeStyle = colour;
    context.setLineDash(dashes);
    context.beginPath();
    context.moveTo(left, at);
    context.lineTo(width, at);
    context.stroke();
  };

  context.fillStyle = colours.muted;
  for (let power = low; power <= high; power++) {
    line(level(power), colours.line);
    context.fillText(power >= 3 ? `${10 ** (power - 3)} s` : `${10 ** power} ms`, left - 8, level(power));
  }
  if (!count) return;

  line(y(quantile(sorted, 0.5)), colours.ink);
  line(y(quantile(sorted, 0.99)), colours.ink, [2, 3]);

  // The axis holds 60 echoes at first and gives way as more come in.
  const slots = Math.max(60, count);
  const dot = count > 200 ? 2 : 3;
  const step = (right - left - dot) / (slots - 1);
  context.fillStyle = colours.received;
  for (let age = 0; age < count; age++) {
    const ms = echoes[(echoCount - 1 - age) % ECHO_WINDOW];
    context.fillRect(right - dot - age * step, y(ms) - dot / 2, dot, dot);
  }

  const bar = 4;
  const bins = new Uint16Array(Math.ceil(height / bar));
  for (const ms of sorted) bins[Math.min(bins.length - 1, Math.floor(y(ms) / bar))]++;
  // A handful of echoes is no distribution yet: keep its bars short.
  const most = Math.max(10, ...bins);
  context.globalAlpha = 0.65;
  bins.forEach((n, bin) => {
    if (n) context.fillRect(width - histogram, bin * bar, Math.max(1, (n / most) * histogram), bar - 1);
  });
  context.globalAlpha = 1;
}

new ResizeObserver(() => {
  canvas.width = Math.round(canvas.clientWidth * devicePixelRatio);
  canvas.height = Math.round(canvas.clientHeight * devicePixelRatio);
  drawAtOnce();
}).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readColours);

// ---------------------------------------------------------------- connection

let socket = null;
// Sent messages whose echo is awaited, oldest first. The server answers in
// order, so an echo always belongs to the first of them.
let awaited = [];
let awaitedHead = 0;

function showState(state, text) {
  const element = $("state");
  element.dataset.state = state;
  element.textContent = text;

  const focused = document.querySelector(":focus-visible");
  $("url").readOnly = $("connect").disabled = socket !== null;
  $("disconnect").disabled = state !== "open" && state !== "connecting";
  for (const id of ["send", "send-binary", "send-file", "repeat"]) $(id).disabled = state !== "open";
  // A disabled control drops the keyboard's focus: hand it to the next useful one.
  // Not after a tap, where it would open the on-screen keyboard.
  if (focused?.disabled) {
    const next = $(state === "open" || state === "connecting" ? "message" : "url");
    next.focus();
    next.select();
  }
}

function connect() {
  const url = $("url").value.trim();
  try {
    socket = new WebSocket(url);
  } catch (error) {
    showError("url", error.name === "SyntaxError" ? "This is not a WebSocket address. It should look like ws://host:port/path." : error.message);
    return;
  }
  showError("url", "");
  socket.binaryType = "arraybuffer";
  let opened = false;

  socket.addEventListener("open", () => {
    opened = true;
    showError("message", "");
    record("event", "open", url);
    showState("open", "Connected");
  });
  socket.addEventListener("message", (event) => receive(event.data));
  socket.addEventListener("close", ({ code, reason }) => {
    stopRepeat();
    socket = null;
    awaited = [];
    awaitedHead = 0;
    const meaning = CLOSE_CODES[code] ? ` (${CLOSE_CODES[code]})` : "";
    const said = `code ${code}${meaning}${reason ? `, reason “${reason}”` : ""}`;
    record("event", "close", said);
    $("state").dataset.code = code;
    showState(opened && code !== 1006 ? "closed" : "failed", `${opened ? "Closed" : "Not connected"}: ${said}`);
  });
  delete $("state").dataset.code;
  showState("connecting", "Connecting");
}

function receive(data) {
  const now = performance.now();
  const text = typeof data === "string";
  const first = awaited[awaitedHead];
  // What the server says unasked, such as a greeting, must not be timed as an echo.
  // Bytes are told by their number alone, which is enough and costs nothing.
  const isEcho = first !== undefined && (text ? data === first.payload : data.byteLength === first.payload.byteLength);
  let rtt;
  if (isEcho) {
    rtt = now - first.time;
    awaited[awaitedHead++] = undefined;
    if (awaitedHead === awaited.length) {
      awaited = [];
      awaitedHead = 0;
    } else if (awaitedHead > 4096) {
      awaited = awaited.slice(awaitedHead);
      awaitedHead = 0;
    }
    echoes[echoCount++ % ECHO_WINDOW] = rtt;
  }
  const size = isEcho ? first.size : text ? encoder.encode(data).length : data.byteLength;
  totals.received++;
  totals.bytesReceived += size;
  stale = true;
  record("received", text ? "text" : "binary", data, size, rtt);
  if (isEcho && repeat && first.repeat === repeat) repeat.onEcho?.();
}

const sizeOf = (payload) => typeof payload === "string" ? encoder.encode(payload).length : payload.byteLength;

function send(payload, size = sizeOf(payload), repeat = null) {
  if (socket?.readyState !== WebSocket.OPEN) return;
  if (awaited.length - awaitedHead < AWAITED_LIMIT) awaited.push({ payload, size, repeat, time: performance.now() });
  socket.send(payload);
  totals.sent++;
  totals.bytesSent += size;
  stale = true;
  record("sent", typeof payload === "string" ? "text" : "binary", payload, size);
}

$("connection").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!socket) connect();
});

$("disconnect").addEventListener("click", () => {
  stopRepeat();
  socket.close(1000);
  showState("closing", "Closing");
});

// ------------------------------------------------------------------- sending

function showError(id, text) {
  $(`${id}-error`).textContent = text;
  if (text) $(id).setAttribute("aria-invalid", "true");
  else $(id).removeAttribute("aria-invalid");
}

// Bytes typed as hex: "c0ffee", "c0 ff ee", "c0:ff:ee" and "0xc0, 0xff" all do.
function parseHex(typed) {
  const digits = typed.replace(/\b0x/gi, " ").replace(/[\s,:]+/g, "");
  const stray = digits.match(/[^0-9a-f]/iu);
  if (stray) throw new Error(`“${stray[0]}” is not a hex digit: use 0–9 and a–f.`);
  if (!digits) throw new Error("Type at least one byte, such as c0 ff ee.");
  if (digits.length % 2) throw new Error(`A byte takes two hex digits, and ${digits.length} is an odd number of them.`);
  return Uint8Array.from(digits.match(/../g), (pair) => parseInt(pair, 16)).buffer;
}

function typedBytes() {
  try {
    const bytes = parseHex($("hex").value);
    showError("hex", "");
    return bytes;
  } catch (error) {
    showError("hex", error.message);
    $("hex").focus();
    return null;
  }
}

$("text-form").addEventListener("submit", (event) => {
  event.preventDefault();
  send($("message").value);
});

$("message").addEventListener("keydown", (event) => {
  // Enter also ends the composition of a word in an input method; that one is not ours.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if ($("send").disabled) return showError("message", "Connect first.");
  send(event.target.value);
  event.target.select();
});

$("hex").addEventListener("input", () => showError("hex", ""));

$("binary-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const bytes = typedBytes();
  if (bytes) send(bytes);
});

$("file").addEventListener("change", () => showError("file", ""));

$("file-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const file = $("file").files[0];
  if (!file) return showError("file", "Choose a file first.");
  if (file.size > FILE_LIMIT) return showError("file", `${formatBytes(file.size)} is more than this page sends at once (${formatBytes(FILE_LIMIT)}).`);
  try {
    send(await file.arrayBuffer());
    showError("file", "");
  } catch (error) {
    showError("file", `The file could not be read: ${error.message}`);
  }
});

// -------------------------------------------------------------------- repeat

let repeat = null;

function startRepeat() {
  const payload = $("repeat-kind").value === "text" ? $("message").value : typedBytes();
  if (payload === null) return;
  const size = sizeOf(payload);
  const next = () => send(payload, size, repeat);
  const mode = $("repeat-rate").value;
  repeat = {};
  if (mode === "echo" || mode === "pipeline") {
    repeat.onEcho = next;
    for (let n = mode === "echo" ? 1 : PIPELINE; n > 0; n--) next();
  } else {
    const interval = 1000 / mode;
    let due = performance.now();
    const tick = () => {
      const now = performance.now();
      // After a pause, as in a tab put in the background, go on; do not catch up in one burst.
      if (now - due > Math.max(interval, 250)) due = now;
      for (; due <= now; due += interval) {
        if (socket.bufferedAmount < BUFFER_LIMIT && awaited.length - awaitedHead < AWAITED_LIMIT) next();
      }
    };
    tick();
    repeat.timer = setInterval(tick, TICK_MS);
  }
  $("repeat").textContent = "Stop";
  $("repeat").dataset.running = "";
}

function stopRepeat() {
  if (!repeat) return;
  clearInterval(repeat.timer);
  repeat = null;
  $("repeat").textContent = "Start";
  delete $("repeat").dataset.running;
}

$("repeat-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (repeat) stopRepeat();
  else startRepeat();
});
for (const id of ["repeat-kind", "repeat-rate", "message", "hex"]) {
  $(id).addEventListener("change", () => {
    if (!repeat) return;
    stopRepeat();
    startRepeat();
  });
}

// --------------------------------------------------------------------- start

$("url").value = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
$("timer").textContent = `timed to ${Number(clockStep.toPrecision(1))} ms`;
readColours();
