"""The site: document roots and WebSocket routes on a reactor, and how its rooms are wired together.

Owns: the parts of a server, and their configuration. Refuses to know: what any of them does.
"""

import os

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from c1m.accesslog cimport log_free, log_lost, log_new, log_take
from c1m.address cimport Networks, networks_add, networks_free, networks_init
from c1m.buf cimport Slice
from c1m.calls cimport (
    call_draining, call_list, call_lost, call_note, call_refused, call_unagreed, call_unreadable, call_upgrade,
    calls_release, handler_events, silent_events,
)
from c1m.coding cimport CODINGS as CODINGS_N, IDENTITY, Coding
from c1m.counts cimport (
    MAX_PATHS, Counts, counts_copy, counts_free, counts_new, counts_route, counts_told,
)
from c1m.deflate cimport DeflateSettings
from c1m.files cimport (
    MAX_INDEX_NAMES, MAX_ROOTS, Root, files_forget, files_free, files_index, files_init, files_root,
)
from c1m.gate cimport gate_admit, gate_free, gate_init, gate_uncount
from c1m.httpconn cimport http_server_init
from c1m.limits cimport limits_forget, limits_init
from c1m.mailbox cimport mailbox_close, mailbox_free, mailbox_init, mailbox_run
from c1m.naming cimport MAX_NAME, MAX_TYPED, MediaType, Rule, Rules, coding_name, types_set
from c1m.pubsub cimport hub_free, hub_init, hub_receive, hub_route, hub_share
from c1m.reactor cimport (
    Callbacks, Conn, reactor_alarm, reactor_close_all, reactor_keep_peers, reactor_trim, reactor_wake, timeout_class,
)
from c1m.ring cimport ring_close
from c1m.shared cimport Shared
from c1m.static cimport MAX_CORS, MAX_MOUNTS, MAX_RULES, Mount, mount_add
from c1m.websocket cimport Application, Handler
from c1m.ws cimport ws_accept
from c1m.wsconn cimport (
    MAX_ORIGINS, MAX_PROTOCOLS, MAX_ROUTE_TOPICS, MAX_ROUTES, SHARED_COMPRESSION, SLOW_CLOSE, WsRoute, ws_server_free,
    ws_server_init,
)

cdef enum:
    DEFLATE_LEVEL = 6            # zlib's default
    ALARM_MS = 10000             # between looks at what may be forgotten
    CLOSE_MS = 10000             # that a client has for its Close after ours
    QUIET_MS = 1000              # between two lines in the log about what was lost of others' messages

LIMITS = {
    "roots": min(<int>MAX_MOUNTS, <int>MAX_ROOTS), "index": <int>MAX_INDEX_NAMES, "index_name": <int>MAX_NAME,
    "rules": <int>MAX_RULES, "typed": <int>MAX_TYPED, "cors": <int>MAX_CORS, "origins": <int>MAX_ORIGINS,
    "routes": <int>MAX_ROUTES, "subprotocols": <int>MAX_PROTOCOLS, "topics": <int>MAX_ROUTE_TOPICS,
}
"""How many of each there may be; of index_name and typed, names with a media type, how many bytes."""
WHEN_SLOW = ("close", "drop-newest", "drop-oldest", "latest")
"""What route()'s when_slow means, by number: wsconn's WhenSlow."""
COMPRESSION = (None, "shared", "dedicated")
"""And its compression."""
FORWARDED = ("x-forwarded-for", "forwarded")
"""What Site's forwarded means, by number."""
CODINGS = tuple(coding_name(<Coding>i).decode() for i in range(<int>IDENTITY + 1, <int>CODINGS_N))
"""The names of content codings that mount()'s encodings may have."""


# ---- what the reactor calls ----

cdef void site_note(void *app, int what, int64_t number) noexcept nogil:
    call_note(&(<Parts *>app).calls, what, <int>number)


cdef bint site_woken(void *app) noexcept nogil:
    cdef Parts *p = <Parts *>app
    cdef bint done = mailbox_run(p.mailbox)
    if p.hub.ring != NULL:
        if not hub_receive(p.hub):
            reactor_wake(p.r)    # but nobody has asked this process for the rest: a shutdown does not wait for it
        lost_note(p)
    return done


cdef void lost_note(Parts *p) noexcept nogil:
    """Tells the log of what was lost of others' messages, once in a while."""
    cdef uint64_t lost = p.counts.all.publish_lost
    if lost != p.lost_noted and p.r.now_ms - p.lost_noted_ms >= QUIET_MS:
        call_lost(&p.calls, lost - p.lost_noted)
        p.lost_noted, p.lost_noted_ms = lost, p.r.now_ms


cdef void site_alarm(void *app) noexcept nogil:
    """Once in a while, whatever comes or does not."""
    cdef Parts *p = <Parts *>app
    files_forget(&p.files.files, p.r.now_ms)
    limits_forget(&p.gate.limits, p.r.now_ms * 1000000)
    reactor_trim(p.r)
    if p.hub.ring != NULL:
        lost_note(p)
    reactor_alarm(p.r, p.alarm_timeout)


cdef void site_ended(void *app) noexcept nogil:
    cdef Parts *p = <Parts *>app
    mailbox_close(p.mailbox)
    if p.hub.ring != NULL:
        ring_close(p.hub.ring, p.hub.seat)


cdef void site_release(void *app) noexcept nogil:
    calls_release(&(<Parts *>app).calls)


cdef bint site_admit(void *app, Conn *c) noexcept nogil:
    return gate_admit(&(<Parts *>app).gate, c)


cdef void site_uncount(void *app, Conn *c) noexcept nogil:
    gate_uncount(&(<Parts *>app).gate, c)


cdef bint site_draining(void *app) noexcept nogil:
    return call_draining(&(<Parts *>app).calls)


# ---- the site as Python sees it ----

cdef class Site(Application):
    """Document roots and WebSocket routes on a reactor.

    write_timeout_ms, head_timeout_ms, keep_alive_timeout_ms: how long, in milliseconds, queued output may wait for the
    client, a request may take to come whole, a connection may idle between requests. drain_code: of the Close when the
    server stops. cache_files, cache_bytes: bounds of the cache. mime_types: media types by extension, with its dot, or
    by name, as bytes, each with whether a charset is said of it; None names the default. listing: makes the page that
    lists a directory, as c1m.listing.Listings.page does. max_connections, max_connections_per_address,
    max_upgrades_per_address: None for any number. proxy_protocol, trusted_proxies: None for a Unix-domain socket, or an
    address of 4 or 16 bytes and how many bits of it count. forwarded: by FORWARDED.
    shared, seat: what it shares with other processes of the same server, made before they were forked, and its place
    there; None: it is alone.
    Raises MemoryError, OSError, ValueError.
    """

    def __cinit__(self, *, int64_t write_timeout_ms, head_timeout_ms, keep_alive_timeout_ms, int drain_code,
                  int cache_files, size_t cache_bytes, dict mime_types, listing, max_connections,
                  max_connections_per_address, max_upgrades_per_address, proxy_protocol, trusted_proxies,
                  int forwarded, Shared shared=None, int seat=-1):
        cdef Parts *p = &self.parts
        memset(p, 0, sizeof(Parts))
        self.kept = [listing]
        if shared is not None:
            Py_INCREF(shared)
            self.shared = <void *>shared
        self.own_counts = counts_new()
        if self.own_counts == NULL:
            raise MemoryError
        p.counts = self.own_counts if shared is None else shared.sit(seat)
        self.r.counts = &p.counts.all.net
        p.gate.counts, p.gate.limits.count = p.counts.all.refused, &p.counts.all.limited_addresses
        self.open = []
        p.r = &self.r
        p.mailbox, p.hub = &self.mailbox, &self.hub
        mailbox_init(&self.mailbox, p.r)
        http_server_init(&p.http, p.r, &p.counts.all.http, &p.files, &self.ws)
        ws_server_init(&self.ws, p.r, &p.counts.all.ws, &p.calls, self.timeout(CLOSE_MS))
        self.ws.drain_code = drain_code
        if (not files_init(&p.files.files, &p.counts.all.files, cache_files, cache_bytes) or
                not hub_init(&self.hub, &self.ws, &p.counts.all.topics)):
            raise MemoryError
        if shared is not None:
            hub_share(&self.hub, shared.ring_of(), seat)
        p.http.owner, p.http.upgrade, p.http.list = &p.calls, call_upgrade, call_list
        p.http.unagreed = call_unagreed
        p.http.head_timeout = self.timeout(head_timeout_ms)
        p.http.keep_alive_timeout = self.timeout(keep_alive_timeout_ms)
        p.files.owner, p.files.unreadable = &p.calls, call_unreadable
        p.calls.app, p.calls.list = <void *>self, <void *>listing
        p.calls.ws, p.calls.hub, p.calls.files = &self.ws, &self.hub, &p.files
        for key, (name, is_text) in mime_types.items():
            self.kept.append((key, name))
            if key is None:
                p.files.files.types.default_type = MediaType(Slice(<bytes>name, len(name)), is_text)
            elif not types_set(&p.files.files.types, Slice(<bytes>key, len(key)),
                               MediaType(Slice(<bytes>name, len(name)), is_text)):
                raise ValueError("too many media types")
        p.r.on = Callbacks(app=p, note=site_note, woken=site_woken, alarm=site_alarm, ended=site_ended,
                           release=site_release, draining=site_draining, admit=NULL, uncount=site_uncount)
        p.forwarding.standard = forwarded
        networks_fill(&p.forwarding.trusted, trusted_proxies)
        networks_fill(&p.gate.proxies, proxy_protocol)
        p.gate.most = max_connections or 0
        if trusted_proxies:
            p.http.out.forwarding = &p.forwarding
            self.keep_peers()
        if proxy_protocol or max_connections or max_connections_per_address or max_upgrades_per_address:
            self.keep_peers()
            gate_init(&p.gate, p.r, &p.forwarding.trusted)
            p.gate.owner, p.gate.refused = &p.calls, call_refused
            p.gate.timeout, p.gate.refusing = p.http.head_timeout, p.http.refusing
            p.http.gate = &p.gate
            p.r.on.admit = site_admit
        if max_connections_per_address or max_upgrades_per_address:
            connections, upgrades = max_connections_per_address or 0, max_upgrades_per_address or 0
            if not limits_init(&p.gate.limits, connections, upgrades, p.r.size):
                raise MemoryError
        p.alarm_timeout = self.timeout(ALARM_MS)
        reactor_alarm(p.r, p.alarm_timeout)

    def __dealloc__(self):
        cdef int i
        for i in range(self.ws.routes_n):
            if self.ws.routes[i].on != NULL:
                self.ws.routes[i].on = silent_events()
        reactor_close_all(&self.r)
        files_free(&self.parts.files.files)
        for i in range(self.parts.files.mounts_n):
            mount_free(self.parts.files.mounts[i])
        ws_server_free(&self.ws)
        hub_free(&self.hub)
        mailbox_free(&self.mailbox)
        gate_free(&self.parts.gate)
        networks_free(&self.parts.gate.proxies)
        networks_free(&self.parts.forwarding.trusted)
        log_free(self.parts.http.out.log)
        counts_free(self.own_counts)
        if self.shared != NULL:
            Py_DECREF(<object>self.shared)

    cdef uint8_t timeout(self, ms) except 0:
        """The timeout class of ms milliseconds. Raises ValueError where there are too many."""
        cdef uint8_t found = timeout_class(&self.r, ms)
        if not found:
            raise ValueError("too many different timeouts")
        return found

    cdef keep_peers(self):
        if not reactor_keep_peers(&self.r):
            raise MemoryError

    def log_to_memory(self, bint as_json):
        """Keeps an access log from now on, for log_take() to take away. Raises MemoryError."""
        self.keep_peers()
        if self.parts.http.out.log == NULL:
            self.parts.http.out.log = log_new(as_json, &self.parts.counts.all.log_lines_dropped)
        if self.parts.http.out.log == NULL:
            raise MemoryError

    def log_take(self):
        """The lines of the access log since the last call, as bytes. Any thread may call it, one at a time."""
        return b"" if self.parts.http.out.log == NULL else log_take(self.parts.http.out.log)

    def log_lost(self, uint64_t lines):
        """Counts lines that log_take() has given and nobody will see. Any thread may call it."""
        if self.parts.http.out.log != NULL:
            log_lost(self.parts.http.out.log, lines)

    def mount(self, bytes host, bytes prefix, path, *, index, cache, bytes headers, headers_for, encodings,
              bytes charset, cors, bytes cors_fields, bint listing, bint spa, bint clean_urls, bint sidecars,
              bint escaped_slashes, bint dotfiles, bint follow_symlinks):
        """Serves a directory below a URL prefix ("" or "/assets"), on a host or, if that is empty, on any.

        index: names that stand for their directory. headers: whole header lines. cache, headers_for, encodings:
        (pattern, value) pairs, the first that fits counts; their values are of Cache-Control, whole header lines in
        place of `headers`, and names of content codings. charset: of text, b"" to say none. cors: origins that may read
        the responses, b"*" for any; cors_fields: whole header lines for them. The rest as c1m.Root has it.
        Raises OSError, ValueError.
        """
        cdef Mount *m
        cdef Root *r
        cdef int root
        if self.parts.files.mounts_n == MAX_MOUNTS or len(cors) > MAX_CORS:
            raise ValueError("more roots or origins than LIMITS has")
        root = files_root(&self.parts.files.files, os.fsencode(path), follow_symlinks)
        if root < 0:
            raise OSError(-root, os.strerror(-root), str(path))
        r = &self.parts.files.files.roots[root]
        r.dotfiles, r.clean_urls = dotfiles, clean_urls
        index = [os.fsencode(name) for name in index]
        for name in index:
            if not files_index(&self.parts.files.files, root, Slice(<bytes>name, len(name))):
                raise ValueError("more index names than LIMITS has, or a longer one")
        if charset:
            charset = b"; charset=" + charset
        self.kept.append((host, prefix, index, cache, headers, headers_for, encodings, charset, cors, cors_fields))
        m = <Mount *>calloc(1, sizeof(Mount))
        if m == NULL:
            raise MemoryError
        m.host = Slice(host, len(host))
        m.prefix = Slice(prefix, len(prefix))
        m.root = root
        m.listing, m.single_page, m.sidecars, m.escaped_slashes = listing, spa, sidecars, escaped_slashes
        m.fields = Slice(headers, len(headers))
        m.charset = Slice(charset, len(charset))
        m.cors_fields = Slice(cors_fields, len(cors_fields))
        m.any_origin = b"*" in cors
        m.own_fields = m.charset.n + m.cors_fields.n + max(map(len, cors), default=0)
        m.own_fields += max(len(value) for _, value in [*cache, (b"", b"")])
        m.own_fields += max(len(value) for _, value in [*headers_for, (b"", headers)])
        try:
            m.cache = rules(cache)
            m.fields_for = rules(headers_for)
            r.encodings = rules(encodings)
            if not m.any_origin:
                m.origins_n = slices(m.origins, cors)
        except BaseException:
            mount_free(m)
            raise
        mount_add(&self.parts.files, m)

    def route(self, bytes path, Handler handler, *, uint32_t max_message, idle_timeout_ms, ping_interval_ms,
              size_t max_send_queue, int when_slow, origins, subprotocols, topics, int compression,
              int window_bits, int memory_level):
        """Speaks WebSocket at a path, for a handler, or, where that is None, sending every message back.

        ping_interval_ms of silence bring a ping, idle_timeout_ms the end. when_slow: by WHEN_SLOW. compression: by
        COMPRESSION. Raises ValueError.
        """
        cdef uint8_t[28] accepted
        cdef uint8_t ping = self.timeout(ping_interval_ms), pong = self.timeout(idle_timeout_ms - ping_interval_ms)
        cdef WsRoute *route
        if self.ws.routes_n == MAX_ROUTES or len(origins) > MAX_ORIGINS or len(subprotocols) > MAX_PROTOCOLS or \
                len(topics) > MAX_ROUTE_TOPICS:
            raise ValueError("more WebSocket routes, origins, subprotocols or topics than LIMITS has")
        if handler is not None:
            self.keep_peers()
        route = <WsRoute *>calloc(1, sizeof(WsRoute))
        if route == NULL:
            raise MemoryError
        route.counts = counts_route(self.parts.counts, path)
        if route.counts == NULL:
            free(route)
            raise ValueError(f"the paths of all WebSocket routes take more than {MAX_PATHS >> 10} KiB")
        # OpenSSL loads and sets up some 2 MB at its first hash: not while a client waits.
        ws_accept(b"dGhlIHNhbXBsZSBub25jZQ==", accepted)
        self.kept.append((path, handler, origins, subprotocols, topics))
        route.path = Slice(path, len(path))
        if handler is not None:
            route.on = handler_events()
            route.handler = <void *>handler
        route.max_message, route.ping_timeout, route.pong_timeout = max_message, ping, pong
        route.max_send_queue, route.when_slow = max_send_queue, when_slow
        route.compression = compression
        route.deflate = DeflateSettings(
            compression == SHARED_COMPRESSION, when_slow != SLOW_CLOSE, window_bits, memory_level, DEFLATE_LEVEL)
        route.origins_n = slices(route.origins, origins)
        route.protocols_n = slices(route.protocols, subprotocols)
        route.topics_n = slices(route.topics, topics)
        hub_route(&self.hub, route)
        self.ws.routes[self.ws.routes_n] = route
        self.ws.routes_n += 1

    def run(self):
        super().run()
        self.reraise()

    def counters(self):
        """Every counter of this process, as a dict; sums since the start but for what is told of now. Any thread may
        call it."""
        return counts_told(self.parts.counts)

    def forget(self):
        """See Loop; what goes on here is not the parent's to count."""
        if self.parts.counts != self.own_counts:
            counts_copy(self.own_counts, self.parts.counts)
            self.count_in(self.own_counts)
        super().forget()

    cdef count_in(self, Counts *counts):
        """Counts there from now on."""
        cdef Parts *p = &self.parts
        cdef int i
        for i in range(self.ws.routes_n):
            self.ws.routes[i].counts = counts.routes + (self.ws.routes[i].counts - p.counts.routes)
        if p.http.out.log != NULL:
            p.http.out.log.dropped = &counts.all.log_lines_dropped
        p.counts = counts
        p.gate.counts, p.gate.limits.count = counts.all.refused, &counts.all.limited_addresses
        self.r.counts, p.http.out.counts, self.ws.counts = &counts.all.net, &counts.all.http, &counts.all.ws
        p.files.files.counts, self.hub.topics_now = &counts.all.files, &counts.all.topics


cdef networks_fill(Networks *to, networks):
    """Those that Site is given. Raises MemoryError."""
    if not networks_init(to, len(networks)):
        raise MemoryError
    for network in networks:
        if network is None:
            to.local = True
        else:
            address, bits = network
            networks_add(to, Slice(<bytes>address, len(address)), bits)


cdef int slices(Slice *to, items) except -1:
    """Bytes objects, which must be kept, as slices; returns how many."""
    cdef int n = 0
    for item in items:
        to[n] = Slice(<bytes>item, len(item))
        n += 1
    return n


cdef Rules rules(pairs) except *:
    """(pattern, value) pairs of bytes, which must be kept. Raises MemoryError, ValueError."""
    cdef Rules made = Rules(NULL, 0)
    if len(pairs) > MAX_RULES:
        raise ValueError("more patterns than LIMITS has")
    made.rules = <Rule *>calloc(len(pairs) or 1, sizeof(Rule))
    if made.rules == NULL:
        raise MemoryError
    for pattern, value in pairs:
        made.rules[made.n] = Rule(<bytes>pattern, Slice(<bytes>value, len(value)))
        made.n += 1
    return made


cdef void mount_free(Mount *m) noexcept:
    free(m.cache.rules)
    free(m.fields_for.rules)
    free(m)
