// Pages from memory and an echo by Bun: `bun bun.js PORT ROOT`. At /publish, what anybody sends goes to all.

const { readdirSync, readFileSync } = require("fs");
const [port, root] = process.argv.slice(2);

const routes = {};
for (const name of readdirSync(root))
  routes[`/${name}`] = new Response(readFileSync(`${root}/${name}`), {
    headers: { "Content-Type": "text/html; charset=utf-8" },
  });

const server = Bun.serve({
  port,
  hostname: "127.0.0.1",
  routes,
  fetch(request, server) {
    const all = new URL(request.url).pathname === "/publish";
    if (!server.upgrade(request, { data: { all } }))
      return new Response("not found", { status: 404 });
  },
  websocket: {
    perMessageDeflate: false,
    maxPayloadLength: 1 << 30,
    idleTimeout: 960,
    open(ws) {
      if (ws.data.all) ws.subscribe("all");
    },
    message(ws, message) {
      if (ws.data.all) server.publish("all", message);
      else ws.send(message);
    },
  },
});
