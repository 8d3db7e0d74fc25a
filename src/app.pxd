"""What the application keeps: its routes and mounts, the answer being written, what other threads ask for."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from c1m.accesslog cimport Log
from c1m.buf cimport Block, Slice
from c1m.deflate cimport MAX_WINDOW_BITS, Deflater, DeflateSettings, DeflateTerms, Inflater
from c1m.files cimport Files
from c1m.http cimport MAX_REQUEST_LINE, HttpRequest
from c1m.linux cimport pthread_mutex_t
from c1m.reactor cimport Reactor
from c1m.semantics cimport DATE_SIZE
from c1m.topics cimport Topics

cdef enum:
    MAX_ROUTES = 1024
    MAX_MOUNTS = 256
    MAX_CACHE_RULES = 32
    MAX_ORIGINS = 32
    MAX_PROTOCOLS = 16

cdef enum Speaks:                # Conn.state
    HTTP                         # Conn.engine is an HttpParser; conn.cold is NULL, or the log's Line of an answer under way
    WEBSOCKET                    # a WsParser; conn.cold is the message being put together, as a Block or NULL, or,
                                 # where the route has a handler, a WebSocket, of which we hold a reference.
                                 # conn.extra: 0, or the window bits that we compress with; OWN_STREAMS beside them
                                 # means that there is a Codec: the WebSocket's, or, for the echo, in conn.cold
    WEBSOCKET_PINGED             # likewise: silent for half its idle time, and asked whether it lives
    WEBSOCKET_CLOSING            # likewise: our Close is sent, the peer's is awaited

cdef enum Slow:                  # what becomes of a message for a visitor whose backlog is full
    SLOW_CLOSE                   # the visitor goes, with 1013
    SLOW_DROP_NEWEST
    SLOW_DROP_OLDEST
    SLOW_LATEST                  # of each topic only the newest waits

cdef enum:                       # Piece.tag; 0 is for control frames, and for what was written in a visit of its own
    TAG_MESSAGE = 1
    TAG_TOPIC = 2                # and up: 2 + the topic's serial number

cdef enum Compression:
    NO_COMPRESSION
    SHARED_COMPRESSION           # no context outlives a message, and no connection owns a stream
    DEDICATED_COMPRESSION

cdef struct Codec:               # the streams of a connection with contexts of its own
    Deflater *deflater
    Inflater *inflater
    DeflateTerms terms
    Block *message               # for the echo, which has nowhere else to put it: see Speaks

cdef struct Route:               # where WebSockets are spoken
    Slice path
    void *handler                # a Handler, borrowed; NULL for the echo
    uint32_t max_message
    uint8_t ping_timer           # silence before we ping
    uint8_t pong_timer           # and after that, before we give up
    uint8_t when_slow            # Slow
    size_t max_backlog           # bytes
    Slice[MAX_ORIGINS] origins  # that may connect; none: any
    int origins_n
    Slice[MAX_PROTOCOLS] protocols       # subprotocols, best first
    int protocols_n
    uint8_t compression          # Compression
    DeflateSettings deflate
    Deflater *deflaters[MAX_WINDOW_BITS + 1]  # by window bits, made when first needed; for SHARED_COMPRESSION
    uint64_t dropped             # messages dropped for slow readers
    uint64_t closed_slow         # visitors closed for being one

cdef enum CommandKind:           # what another thread asks for
    COMMAND_SEND
    COMMAND_PUBLISH
    COMMAND_CLOSE
    COMMAND_PING
    COMMAND_PYTHON               # those from here on look at Python's objects
    COMMAND_HOLD                 # or let go: as the WebSocket has it by then
    COMMAND_SUBSCRIBE
    COMMAND_UNSUBSCRIBE

cdef struct Command:
    Command *next
    CommandKind kind
    uint64_t handle              # of the visitor; for COMMAND_PUBLISH, of the one left out, 0 for none
    Block *topic                 # a name, or NULL
    Block *frame                 # or NULL

cdef struct CacheRule:
    const char *pattern          # for fnmatch(3)
    Slice value                  # of Cache-Control

cdef struct Mount:               # a document root's place in the URL space, and how it answers there
    Slice host                   # lower case; empty for any
    Slice prefix                 # without its last slash: "" or "/assets"
    int root
    bint listing                 # list directories that have no index
    bint single_page             # answer with the root's index where nothing is found
    bint sidecars                # look for name.zst, name.br, name.gz
    Slice fields                 # whole header lines for every file
    size_t room                  # bytes of a head, beyond MAX_HEAD, that what is said here may take
    CacheRule[MAX_CACHE_RULES] rules
    int rules_n
    Slice[MAX_ORIGINS] origins  # that may read our answers from scripts of theirs
    int origins_n
    bint any_origin              # all of them may

cdef struct Answer:              # what every part of the answer being written has to know
    const Mount *mount           # NULL: the path is below none
    Slice origin                 # the one that may read the answer, if any: the request's, or "*"
    bint by_origin, by_accept    # another Origin or Accept might have had another answer (Vary)
    bint keep                    # the connection will be kept
    int status
    int64_t length               # of the body, as announced
    uint64_t head_sent           # Reactor.sent when all before the body will have left

cdef struct App:
    void *site                   # the Site, borrowed, for calls into Python
    Reactor *r
    Files files
    Route *routes[MAX_ROUTES]
    int routes_n
    Mount *mounts[MAX_MOUNTS]   # the first that fits a request is its: by host, then any host, longest prefix first
    int mounts_n
    uint8_t head_timer           # for a request's head and body to come whole
    uint8_t close_timer          # for the peer's Close after ours
    uint8_t keep_timer           # for another request to begin
    uint8_t forget_timer         # between two calls of site_alarm
    int64_t date_s               # the second that `date` shows
    uint8_t[DATE_SIZE] date
    uint8_t[MAX_REQUEST_LINE] path       # the request's, unescaped
    HttpRequest request          # the one being answered
    Answer answer
    Log *log                     # NULL for none
    uint64_t requests
    uint64_t[6] answers          # by the status code's first digit
    int64_t websockets           # open now
    uint64_t upgrades, messages
    Topics topics
    Inflater *inflater           # for SHARED_COMPRESSION
    Block *packing               # the frame that is being sent to many, if to compress it is worth it
    Block *packed[MAX_WINDOW_BITS + 1]        # and its compressed forms, by window bits
    pthread_mutex_t lock         # over the three below
    Command *first_command
    Command *last_command
    size_t command_bytes         # of memory that they take
