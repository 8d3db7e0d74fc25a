"""A WebSocket connection: frames in, messages out. See wsconn.pyx."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from c1m.buf cimport Block, Slice
from c1m.deflate cimport MAX_WINDOW_BITS, Deflater, DeflateSettings, DeflateTerms, Inflater
from c1m.mailbox cimport Command
from c1m.reactor cimport OWN_FLAG, Conn, Reactor, conn_ending
from c1m.topics cimport Subscriber
from c1m.ws cimport WS_MAX_HEADER, WsParser, ws_header_size

cdef enum:
    MAX_ROUTES = 1024
    MAX_ORIGINS = 32
    MAX_PROTOCOLS = 16

cdef enum WsFlag:                # in Conn.flags
    WS_PINGED = OWN_FLAG         # silent for its ping interval, and sent a ping
    WS_CLOSING = OWN_FLAG << 1   # our Close is sent, the client's is awaited

cdef enum WhenSlow:              # what becomes of a message for a connection whose send queue is full
    SLOW_CLOSE                   # the connection ends, with 1013
    SLOW_DROP_NEWEST
    SLOW_DROP_OLDEST
    SLOW_LATEST                  # of each topic only the newest waits

cdef enum Compression:
    NO_COMPRESSION
    SHARED_COMPRESSION           # no context outlives a message, and no connection owns a stream
    DEDICATED_COMPRESSION

cdef enum:                       # Segment.tag; 0: control frames, and what a connection's own dispatch writes
    TAG_MESSAGE = 1
    TAG_TOPIC = 2                # and up: 2 + the topic's serial number

cdef struct WsCodec:             # the streams of a connection with contexts of its own
    Deflater *deflater
    Inflater *inflater
    DeflateTerms terms

cdef struct WsConn:              # Conn.session. Of an echo NULL but with a message in pieces, a codec, or if behind
    Subscriber subscriber
    void *object                 # the handler's, for WsEvents
    Block *message               # the one that is being received, or NULL
    WsCodec *codec               # or NULL
    Block *reason                # of the Close, NULL for none
    uint16_t code                # the client's Close, else ours, else WS_ABNORMAL
    uint32_t pause_serial        # of the newest pause or resume that counts
    int64_t taken                # conn_taken, when the client was last found reading what lies before our ping
    bint behind                  # something does lie there
    bint client_closed           # its Close came first: what came before is the handler's still

cdef struct WsEvents:            # what a handler hears of a connection; `owner` is WsServer.owner
    void (*opened)(void *owner, Conn *c) noexcept nogil
    void (*abandoned)(void *owner, void *object) noexcept nogil  # it is not to open after all: frees the object
    void (*message)(void *owner, Conn *c, uint8_t opcode, const uint8_t *bytes, size_t n) noexcept nogil
    void (*queue_halved)(void *owner, Conn *c) noexcept nogil   # of a connection with NOTIFY_DRAIN
    void (*drained)(void *owner, Conn *c) noexcept nogil
    void (*closed)(void *owner, Conn *c) noexcept nogil         # it frees the object; the WsConn follows

cdef struct RouteCounts:         # in words that other threads and processes may read
    uint64_t no_subprotocol      # connections of clients that offer some, and none was agreed on
    uint64_t dropped             # messages dropped for slow readers
    uint64_t closed_slow         # connections closed for being one

cdef struct WsCounts:            # likewise
    uint64_t open                # now
    uint64_t upgrades, messages

cdef struct WsRoute:             # where WebSocket is spoken
    Slice path
    const WsEvents *on           # NULL: every message is sent back
    void *handler                # what makes a WsConn.object of this route's
    uint32_t max_message
    uint8_t ping_timeout         # silence before we ping
    uint8_t pong_timeout         # and after that, before we give up
    uint8_t when_slow            # WhenSlow
    size_t max_send_queue        # bytes
    Slice[MAX_ORIGINS] origins   # that may connect; none: any
    int origins_n
    Slice[MAX_PROTOCOLS] protocols        # subprotocols, best first
    int protocols_n
    uint8_t compression          # Compression
    DeflateSettings deflate
    Deflater *deflaters[MAX_WINDOW_BITS + 1]  # by window bits, made when first needed; for SHARED_COMPRESSION
    RouteCounts *counts

cdef struct WsServer:            # what all WebSockets of a server share
    Reactor *r
    void *owner                  # first argument of WsEvents
    uint8_t protocol             # Conn.protocol of a WebSocket
    uint8_t close_timeout        # for the client's Close after ours
    WsRoute *routes[MAX_ROUTES]
    int routes_n
    Inflater *inflater           # for SHARED_COMPRESSION
    WsCounts *counts

cdef struct Message:             # a data message on its way to one connection or to many
    Block *block                 # see message_new
    uint8_t opcode
    Block *compressed[MAX_WINDOW_BITS + 1]    # by window bits, made when first needed; for connections without a codec

cdef void ws_server_init(
    WsServer *w, Reactor *r, WsCounts *counts, void *owner, uint8_t close_timeout
) noexcept nogil
cdef void ws_server_free(WsServer *w) noexcept nogil
cdef bint wsconn_open(WsServer *w, Conn *c, uint16_t route, const DeflateTerms *terms, void *object) noexcept nogil
cdef size_t wsconn_readable(void *owner, Conn *c, uint8_t *bytes, size_t n) noexcept nogil
cdef void wsconn_shutdown(void *owner, Conn *c) noexcept nogil
cdef void wsconn_close(WsServer *w, Conn *c, int code, Block *reason) noexcept nogil
cdef void wsconn_fail(WsServer *w, Conn *c, int code, const char *reason) noexcept nogil
cdef void wsconn_ping(WsServer *w, Conn *c, Block *block) noexcept nogil
cdef void wsconn_pause(WsServer *w, Conn *c, uint32_t serial, bint paused) noexcept nogil
cdef Block *message_new(uint8_t opcode, const void *bytes, size_t n) noexcept nogil
cdef void message_send(WsServer *w, Conn *c, Message *message, uint32_t tag) noexcept nogil
cdef void message_begin(Message *message, uint8_t opcode, Block *block) noexcept nogil
cdef void message_end(Message *message) noexcept nogil
cdef void message_write(WsServer *w, Conn *c, uint8_t opcode, const void *bytes, size_t n) noexcept nogil

# Commands of other threads; owner is the WsServer.
cdef int64_t run_send(void *owner, const Command *command) noexcept nogil        # number: the opcode
cdef int64_t run_close(void *owner, const Command *command) noexcept nogil       # number: the code; block: the reason
cdef int64_t run_ping(void *owner, const Command *command) noexcept nogil
cdef int64_t run_pause(void *owner, const Command *command) noexcept nogil       # number: serial << 1 | whether paused


cdef inline WsConn *wsconn_of(const Conn *c) noexcept nogil:
    return <WsConn *>c.session

cdef inline WsParser *parser_of(Conn *c) noexcept nogil:
    return <WsParser *>c.parser

cdef inline WsRoute *route_of(const WsServer *w, const Conn *c) noexcept nogil:
    return w.routes[c.route]

cdef inline bint wsconn_closing(const Conn *c) noexcept nogil:
    """Whether nothing can be sent on it any more."""
    return c.flags & WS_CLOSING or conn_ending(c)

cdef inline size_t frame_at(const Block *block) noexcept nogil:
    """Where the frame begins in a block of message_new."""
    return WS_MAX_HEADER - ws_header_size(block.size - WS_MAX_HEADER)
