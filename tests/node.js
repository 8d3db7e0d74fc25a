// Plays steps on a WebSocket of the `ws` package, each when the one before it has been answered, and prints what came
// of it. Standard input has [URL, options, steps] as JSON.
"use strict";
const WebSocket = require("ws");

const [url, options, steps] = JSON.parse(require("fs").readFileSync(0, "utf8"));
const ws = new WebSocket(url, options.protocols, options);
const seen = { messages: [], pings: 0, pongs: [] };
const bytes = (each) => (typeof each === "string" ? each : Buffer.from(each));
let at = 0;

function next() {
  const [verb, ...what] = steps[at++] || ["wait"];
  if (verb === "send") ws.send(bytes(what[0]));
  // The `ws` package makes a frame of each part.
  if (verb === "parts") what.forEach((part, i) => ws.send(bytes(part), { fin: i === what.length - 1 }));
  if (verb === "ping") ws.ping(bytes(what[0]));
  if (verb === "close") ws.close(...what);
}

ws.on("open", () => {
  seen.extensions = ws.extensions;
  seen.protocol = ws.protocol;
  next();
});
ws.on("message", (data, binary) => {
  seen.messages.push(binary ? [...data] : data.toString());
  next();
});
ws.on("ping", () => { seen.pings++; });
ws.on("pong", (data) => {
  seen.pongs.push(data.toString());
  next();
});
ws.on("unexpected-response", (request, answer) => {
  seen.status = answer.statusCode;
  console.log(JSON.stringify(seen));
  process.exit();
});
ws.on("error", (error) => { seen.error = error.message; });
ws.on("close", (code, reason) => console.log(JSON.stringify({ ...seen, code, reason: reason.toString() })));
