/* floor.c: the least that a server can do here, to measure others against. It needs libcrypto: gcc -O3 floor.c -lcrypto
 *
 *   floor PORT http BYTES    the same response, with a body of BYTES, for each request
 *   floor PORT once BYTES    the same, and closes the connection behind it
 *   floor PORT ws            an echo of WebSocket messages
 *   floor PORT fan           what any client sends goes to all
 *
 * One thread, one epoll set; one recv and one send for each socket that is readable. Nothing is checked, no file is
 * opened, no header is read: only what the answer can't do without. It is a measuring stick and no server: it trusts
 * its client, and waits for a slow one while all others wait too. A request is taken to come in one piece.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOM = 4 << 20, HEAD_MOST = 14, FDS_MOST = 1 << 21, KEY_N = 24 };

struct stream {                 /* where a WebSocket client is within a frame */
    uint64_t left;              /* bytes of payload to come */
    uint32_t mask;              /* turned so that its first byte meets the next byte of payload */
    uint8_t head[HEAD_MOST];    /* what has come of a header that is not whole yet */
    uint8_t head_n;
    uint8_t open;               /* the handshake is over */
};

static struct stream streams[FDS_MOST];
static uint8_t inbox[HEAD_MOST + ROOM], outbox[ROOM + HEAD_MOST];
static size_t response_n, responses;    /* HTTP: the outbox holds so many, end to end */
static int once;                        /* HTTP: whether a connection has one response */
static int fan, top;                    /* whether all get everything; no fd above top was ever open */

static void send_all(int fd, const void *bytes, size_t n)
{
    while (n) {
        ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return;
        if (sent < 0)
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
        else
            bytes = (const uint8_t *)bytes + sent, n -= sent;
    }
}

static void http_answer(int fd, const uint8_t *in, size_t n)
{
    const uint8_t *end = in + n;
    size_t asked = 0;
    while ((in = memmem(in, end - in, "\r\n\r\n", 4))) {
        asked++;
        in += 4;
    }
    for (size_t now; asked; asked -= now) {
        now = asked < responses ? asked : responses;
        send_all(fd, outbox, now * response_n);
    }
}

/* Unmasks n bytes; returns the mask turned by as many. */
static uint32_t unmask(uint8_t *to, const uint8_t *from, size_t n, uint32_t mask)
{
    uint64_t wide = (uint64_t)mask << 32 | mask, v;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(&v, from + i, 8);
        v ^= wide;
        memcpy(to + i, &v, 8);
    }
    for (; i < n; i++)
        to[i] = from[i] ^ ((const uint8_t *)&wide)[i & 7];
    unsigned turn = 8 * (n & 3);
    return turn ? mask >> turn | mask << (32 - turn) : mask;
}

/* Rewrites a client's header as the server's. Returns how long it was, 0 if it is not whole; *to moves on. */
static size_t head_turn(struct stream *s, const uint8_t *in, size_t n, uint8_t **to)
{
    if (n < 6)
        return 0;
    unsigned length = in[1] & 127, more = length < 126 ? 0 : length == 126 ? 2 : 8;
    if (n < 6 + more)
        return 0;
    s->left = more ? 0 : length;
    for (unsigned i = 0; i < more; i++)
        s->left = s->left << 8 | in[2 + i];
    memcpy(&s->mask, in + 2 + more, 4);
    memcpy(*to, in, 2 + more);
    (*to)[1] &= 127;
    *to += 2 + more;
    return 6 + more;
}

/* The opening handshake (RFC 6455 section 4.2.2); without a key, nothing. */
static void ws_accept(int fd, struct stream *s, const uint8_t *in, size_t n)
{
    static const char KEY[] = "Sec-WebSocket-Key: ", GUID[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const uint8_t *key = memmem(in, n, KEY, sizeof KEY - 1);
    if (!key || (size_t)(in + n - key) < sizeof KEY - 1 + KEY_N)
        return;
    uint8_t both[KEY_N + sizeof GUID], hash[SHA_DIGEST_LENGTH], accept[29];
    memcpy(both, key + sizeof KEY - 1, KEY_N);
    memcpy(both + KEY_N, GUID, sizeof GUID);
    EVP_EncodeBlock(accept, SHA1(both, sizeof both - 1, hash), sizeof hash);
    size_t told = sprintf((char *)outbox, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept);
    s->open = 1;
    send_all(fd, outbox, told);
}

static void ws_answer(int fd, struct stream *s, const uint8_t *in, size_t n)
{
    uint8_t *to = outbox;
    if (!s->open) {
        ws_accept(fd, s, in, n);
        return;
    }
    in -= s->head_n;
    n += s->head_n;
    memcpy((uint8_t *)in, s->head, s->head_n);
    s->head_n = 0;
    while (n) {
        size_t took = s->left < n ? s->left : n;
        if (s->left) {
            s->mask = unmask(to, in, took, s->mask);
            s->left -= took;
            to += took;
        } else if (!(took = head_turn(s, in, n, &to))) {
            memcpy(s->head, in, s->head_n = n);
            break;
        }
        in += took;
        n -= took;
    }
    for (int each = fan ? 0 : fd; each <= (fan ? top : fd); each++)
        if (streams[each].open)
            send_all(each, outbox, to - outbox);
}

static void http_prepare(size_t body)
{
    response_n = sprintf((char *)outbox,
        "HTTP/1.1 200 OK\r\nDate: Mon, 06 Jan 2025 09:00:00 GMT\r\nContent-Type: text/html; charset=utf-8\r\n"
        "Last-Modified: Mon, 06 Jan 2025 09:00:00 GMT\r\nETag: \"677b9a90-71\"\r\nAccept-Ranges: bytes\r\n"
        "%sContent-Length: %zu\r\n\r\n", once ? "Connection: close\r\n" : "", body);
    memset(outbox + response_n, '.', body);
    response_n += body;
    responses = ROOM / response_n;
    for (size_t i = 1; i < responses; i++)
        memcpy(outbox + i * response_n, outbox, response_n);
}

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in here = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);    /* accepted sockets inherit it */
    if (bind(fd, (struct sockaddr *)&here, sizeof here) || listen(fd, 4096)) {
        perror("floor");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    once = argc == 4 && !strcmp(argv[2], "once");
    int http = once || (argc == 4 && !strcmp(argv[2], "http"));
    fan = argc == 3 && !strcmp(argv[2], "fan");
    if (!http && !fan && !(argc == 3 && !strcmp(argv[2], "ws"))) {
        fprintf(stderr, "usage: floor PORT http BYTES | once BYTES | ws | fan\n");
        return 2;
    }
    if (http && strtoul(argv[3], NULL, 10) > ROOM - 512) {
        fprintf(stderr, "floor: a body of at most %d bytes\n", ROOM - 512);
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (http)
        http_prepare(strtoul(argv[3], NULL, 10));
    int listener = listen_on(atoi(argv[1])), epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[512];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int n = epoll_wait(epoll, events, 512, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    memset(&streams[fd], 0, sizeof streams[fd]);
                    top = fd > top ? fd : top;
                    event = (struct epoll_event){.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
                    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
                }
                continue;
            }
            ssize_t got = recv(fd, inbox + HEAD_MOST, ROOM, 0);
            if (got <= 0)
                streams[fd].open = 0, close(fd);
            else if (http) {
                http_answer(fd, inbox + HEAD_MOST, got);
                if (once)
                    close(fd);
            } else
                ws_answer(fd, &streams[fd], inbox + HEAD_MOST, got);
        }
    }
}
