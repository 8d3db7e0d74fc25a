"""Every option there is, and what it does: `python examples/every_option.py [PORT...]`.

Only a root's directory and a WebSocket's path can't be left out. `help(c1m.Server)` has the defaults.
"""

import sys
import tempfile
from pathlib import Path

import c1m

with tempfile.TemporaryDirectory() as directory:
    examples = c1m.Root(
        # The directory. Nothing outside of it is served.
        path=Path(__file__).parent,
        # Names that stand for their directory: the first that exists.
        index=["index.html", "README.md"],
        # Directories without one of those are listed, as a page or, for clients that accept it, as JSON.
        listing=True,
        # Where a page is asked for that does not exist: True sends the root's index page.
        spa=False,
        # Finds about.html as /about, too.
        clean_urls=False,
        # Sends echo.py.gz (or .br, or .zst) in place of echo.py, where it exists and the client accepts it.
        sidecars=True,
        # Files that are stored compressed and asked for by that name: by pattern, as below.
        encodings={"*.wasm.br": "br", "/tiles/*.pbf": "gzip"},
        # Cache-Control by pattern, the first that fits. A pattern with a slash in front is held against the
        # path, any other against the last name in it.
        cache={"*.html": "no-cache", "/assets/*": "public, max-age=31536000, immutable"},
        # Header fields for every file. None takes away one that is sent by default.
        headers={"Referrer-Policy": "no-referrer", "X-Content-Type-Options": None},
        # And by pattern, the first that fits.
        headers_for={"*.toml": {"Referrer-Policy": None, "X-Robots-Tag": "noindex"}},
        # The encoding that is said of text. None says none, for old pages that do so themselves.
        charset="utf-8",
        # Sites whose scripts may read the files; "*" for any.
        cors=["https://example.org"],
        # Lets them do so with the user's cookies, too. The sites must be named then.
        cors_credentials=False,
        # Takes %2F in a path for a slash, as npm writes it. A proxy in front may see another path then.
        escaped_slashes=False,
        # Serves names that begin with a dot, too, as Zarr 2 has them. See that no .git or .env is there.
        dotfiles=False,
        # Follows symbolic links, even out of the directory. Only where nobody else can make any.
        follow_symlinks=False,
    )
    server = c1m.Server(
        # What to serve below which URLs; the longest prefix that a path begins with counts, one with a host
        # before one without. A single directory, root="public", is served at "/". c1m.PAGE is the console.
        root={"/": c1m.PAGE, "/examples": examples, "static.example.org/": Path(__file__).parent},
        # The TCP ports to listen on, one or many. 0 is one that the kernel chooses: see server.ports below.
        ports=[int(port) for port in sys.argv[1:]] or [8001, 8002],
        # The names or addresses to listen on. "0.0.0.0" and "::" are all: other machines can connect then.
        host=["127.0.0.1"],
        # Unix-domain sockets to listen on as well. One that a killed server left behind is replaced.
        unix=Path(directory, "c1m.sock"),
        # Their permissions. To connect takes the right to write. None: what the umask leaves.
        unix_mode=0o660,
        # Proxies that begin each connection with a PROXY header: addresses, networks, "unix" for the Unix sockets.
        proxy_protocol=["192.0.2.10"],
        # Proxies whose requests name their client, and the field in which they do: "x-forwarded-for" or "forwarded".
        trusted_proxies=["unix", "10.0.0.0/8", "2001:db8::/32"],
        forwarded="x-forwarded-for",
        # Connections at once, in all and for each address; each beyond gets a 503. None: any number.
        max_connections=10_000,
        max_connections_per_address=100,
        # New WebSockets a second for each address; one more gets a 429.
        max_upgrades_per_address=10,
        # Sockets that somebody else has opened: objects, descriptors, or "systemd" for those that it hands in.
        sockets=[],
        # Seconds for a request to come whole, from its first byte. Ends those who send a byte now and then.
        head_timeout=5,
        # Seconds that a connection may stay open without a request.
        keep_alive_timeout=30,
        # Seconds that a client may leave unread what it asked for.
        write_timeout=20,
        # Seconds over which a stopping server closes WebSockets one after another, and with which code: 1001, going
        # away, or 1012, service restart. Few are closed at once: a millisecond for each is enough.
        drain=5,
        drain_code=1012,
        # Seconds that it waits then for what is still under way.
        shutdown_timeout=2,
        # How many files are remembered, and how many bytes of small ones are held in memory.
        cache_files=4096,
        cache_bytes=16 << 20,
        # Media types by extension, beside those that every server knows.
        mime_types={"pyx": "text/x-cython", "LICENSE": "text/plain"},
        # And that of all others.
        default_type="application/octet-stream",
        # Where several processes serve, memory for what one publishes and others have yet to read. A message may take
        # a quarter of it.
        publish_buffer=16 << 20,
        # A file for a line about each answer; "-" for standard output. For logrotate, SIGUSR1 opens it
        # anew while run() serves; server.reopen_log() does so at any time.
        access_log=Path(directory, "access.log"),
        # "combined", as Apache and nginx write it, or "json".
        access_log_format="json",
        # How many processes serve, or "auto" for one on each CPU. A signal to this one ends, or renews, all.
        workers=2,
        # Keeps each of them on a CPU of its own.
        pin=False,
        # The event loop that handlers' coroutines run in: None for asyncio's where there are some.
        loop=None,
    )
    server.websocket(
        # Where WebSockets are spoken. The console talks to this path unless told otherwise.
        "/ws",
        # Who answers: a function of (ws, message), or an object with on_open, on_message and so on. None: the echo.
        handler=None,
        # The longest message taken, in bytes. A longer one ends its connection with close code 1009.
        max_message=1 << 16,
        # Seconds of silence until a client is given up, and until it is sent a ping.
        idle_timeout=60,
        ping_interval=20,
        # Sites whose scripts may connect. Without any, all may.
        origins=[],
        # Subprotocols, the best first: of those a client offers, the first of these is agreed on.
        subprotocols=["json", "text"],
        # What is published to these goes to every WebSocket of the route.
        topics=["news"],
        # Bytes that may wait in a client's send queue, and what becomes of it, or of a message, when that is full.
        max_send_queue=1 << 18,
        when_slow="drop-oldest",
        # permessage-deflate: None, "shared" or "dedicated", with the window and memory that zlib is given.
        compression="shared",
        window_bits=13,
        memory_level=6,
    )
    server.listen()
    print(f"listening on ports {server.ports} and on {directory}/c1m.sock", flush=True)
    server.run()
