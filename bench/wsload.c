/* wsload.c: WebSocket load on an echo, from one thread.
 *
 *   wsload [-c CONNECTIONS] [-d DEPTH] [-s BYTES] [-t SECONDS] [-u] [-i] PORT PATH
 *
 * Opens CONNECTIONS to 127.0.0.1, then keeps DEPTH messages of BYTES in flight on each for SECONDS, a new one for
 * each echo that came back. -u sends text (the server then has UTF-8 to check) in place of binary. Every byte that
 * comes back is compared. Prints one line of JSON; times are from sending a message to its echo being whole.
 *
 * -i holds idle connections: each echoes one message, a line of JSON says so, and all stay open until standard input
 * ends. Then a second line says how many the server has dropped meanwhile.
 *
 * The exit status is 1 if a connection was refused, lost, or answered with anything but its own bytes.
 *
 * What is sent lies on a tape: MESSAGES_LEAST or more different frames end to end, without an end, since its start
 * follows its last byte. What must come back lies on another. A client is two positions, one on each, that move on
 * as the kernel takes and gives bytes; each client starts at another frame. So no frame is built or parsed while
 * the load runs, and an echo that is short, late, or another client's does not match.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    MESSAGES_LEAST = 16,
    HANDSHAKES = 256,               /* under way at a time: less than any server's listen backlog */
    PER_ADDRESS = 20000,            /* connections from one source address, which has some 28000 ports */
    TIMES = 1 << 20,                /* the last so many round trips make the percentiles */
    INBOX = 1 << 20,
};

struct tape {
    uint8_t *bytes;
    size_t n, frame;                /* in all, and of one frame */
};

struct client {
    enum { CONNECTING, UPGRADING, OPEN, GONE } phase;
    int fd;
    size_t out, in;                 /* positions on the tapes */
    size_t unsent, missing;         /* bytes asked to be sent, and of echoes to come */
    uint64_t *sent_at;              /* of the last DEPTH messages; NULL when idle */
    uint64_t sent, echoed;          /* messages */
};

static struct tape outgoing, incoming;
static char hello[512];
static uint8_t inbox[INBOX];
static uint64_t times[TIMES], times_n, clock_now;    /* nanoseconds */
static size_t depth = 1, count = 50, opening, opened, failed, echoed;
static int epoll, held;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "wsload: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void fail(struct client *c)
{
    if (c->phase < OPEN)
        opening--;
    c->phase = GONE;
    failed++;
    close(c->fd);
}

/* ---- tapes ---- */

static uint8_t *put_head(uint8_t *to, int opcode, size_t n, int masked)
{
    int more = n < 126 ? 0 : n < 65536 ? 2 : 8;
    *to++ = 0x80 | opcode;
    *to++ = (masked ? 0x80 : 0) | (more == 0 ? n : more == 2 ? 126 : 127);
    while (more--)
        *to++ = (uint64_t)n >> 8 * more;
    return to;
}

static void tapes_record(size_t payload, int opcode)
{
    size_t frames = depth > MESSAGES_LEAST ? depth : MESSAGES_LEAST;
    uint8_t head[10], *to, *back;
    incoming.frame = (put_head(head, opcode, payload, 0) - head) + payload;
    outgoing.frame = incoming.frame + 4;
    incoming.n = frames * incoming.frame;
    outgoing.n = frames * outgoing.frame;
    back = incoming.bytes = malloc(incoming.n);
    to = outgoing.bytes = malloc(outgoing.n);
    if (!to || !back)
        die("tapes");
    srandom(1);
    for (size_t f = 0; f < frames; f++) {
        uint32_t random_mask = random();
        uint8_t mask[4];
        memcpy(mask, &random_mask, 4);
        back = put_head(back, opcode, payload, 0);
        to = put_head(to, opcode, payload, 1);
        memcpy(to, mask, 4);
        to += 4;
        for (size_t i = 0; i < payload; i++) {
            *back = opcode == 1 ? ' ' + random() % 95 : random();
            *to++ = *back++ ^ mask[i & 3];
        }
    }
}

/* ---- a client ---- */

static void client_open(struct client *c, size_t number, int port)
{
    struct sockaddr_in there = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in here = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + number / PER_ADDRESS)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    size_t frames = outgoing.n / outgoing.frame;
    int on = 1;
    c->out = number % frames * outgoing.frame;
    c->in = number % frames * incoming.frame;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(c->fd, (struct sockaddr *)&here, sizeof here))
        die("bind");
    opening++;
    if (connect(c->fd, (struct sockaddr *)&there, sizeof there) && errno != EINPROGRESS)
        fail(c);
    else if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event))
        die("epoll_ctl");
}

static void client_send(struct client *c)
{
    while (c->unsent) {
        struct iovec runs[2];
        struct msghdr message = {.msg_iov = runs, .msg_iovlen = 1};
        size_t to_end = outgoing.n - c->out;
        runs[0] = (struct iovec){outgoing.bytes + c->out, c->unsent < to_end ? c->unsent : to_end};
        if (c->unsent > to_end) {
            runs[1] = (struct iovec){outgoing.bytes, c->unsent - to_end};
            message.msg_iovlen = 2;
        }
        ssize_t took = sendmsg(c->fd, &message, MSG_NOSIGNAL);
        if (took < 0) {
            if (errno != EAGAIN)
                fail(c);
            return;
        }
        c->unsent -= took;
        c->out = (c->out + took) % outgoing.n;
    }
}

/* Sends so many messages more; together with those under way they are DEPTH at most. */
static void client_ask(struct client *c, size_t messages)
{
    c->unsent += messages * outgoing.frame;
    c->missing += messages * incoming.frame;
    if (c->sent_at)
        for (size_t i = 0; i < messages; i++)
            c->sent_at[c->sent++ % depth] = clock_now;
    client_send(c);
}

/* Compares n bytes with the tape. Returns how many messages they completed, -1 where they differ. */
static int client_compare(struct client *c, const uint8_t *bytes, size_t n)
{
    int whole = 0;
    if (n > c->missing)
        return -1;
    c->missing -= n;
    while (n) {
        size_t run = incoming.n - c->in;
        if (run > n)
            run = n;
        if (memcmp(bytes, incoming.bytes + c->in, run))
            return -1;
        whole += (c->in + run) / incoming.frame - c->in / incoming.frame;
        c->in = (c->in + run) % incoming.n;
        bytes += run;
        n -= run;
    }
    if (c->sent_at)
        for (int i = 0; i < whole; i++)
            times[times_n++ % TIMES] = clock_now - c->sent_at[c->echoed++ % depth];
    return whole;
}

/* Takes what has come. Returns how many echoes it completed, -1 if this client is gone. */
static int client_receive(struct client *c)
{
    int whole = 0, more;
    ssize_t got;
    do {
        size_t head = 0;
        got = recv(c->fd, inbox, INBOX, 0);
        if (got < 0 && errno == EAGAIN)
            return whole;
        if (got <= 0)
            goto gone;
        if (c->phase == UPGRADING) {
            const uint8_t *end = memmem(inbox, got, "\r\n\r\n", 4);
            if (!end || memcmp(inbox, "HTTP/1.1 101 ", 13) || !memmem(inbox, got, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 28))
                goto gone;
            head = end + 4 - inbox;
            c->phase = OPEN;
            opening--;
            opened++;
        }
        if ((more = client_compare(c, inbox + head, got - head)) < 0)
            goto gone;
        whole += more;
    } while (got == INBOX);
    return whole;
gone:
    fail(c);
    return -1;
}

static void client_ready(struct client *c, uint32_t events)
{
    if (c->phase == GONE)
        return;
    if (c->phase == CONNECTING && events & EPOLLOUT) {
        c->phase = UPGRADING;
        if (send(c->fd, hello, strlen(hello), MSG_NOSIGNAL) != (ssize_t)strlen(hello)) {
            fail(c);
            return;
        }
    }
    if (events & ~EPOLLOUT) {
        int was_open = c->phase == OPEN, whole = client_receive(c);
        if (whole < 0)
            return;
        echoed += whole;
        if (held && !was_open && c->phase == OPEN)
            client_ask(c, 1);
        else if (whole && c->sent_at)
            client_ask(c, whole);
    }
    if (events & EPOLLOUT && c->phase == OPEN)
        client_send(c);
}

/* ---- all of them ---- */

static void turn(int wait_ms)
{
    struct epoll_event events[512];
    int n = epoll_wait(epoll, events, 512, wait_ms);
    clock_now = now_ns();
    for (int i = 0; i < n; i++)
        client_ready(events[i].data.ptr, events[i].events);
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void run(struct client *clients, double seconds)
{
    uint64_t begun, since;
    uint64_t *sent_at = calloc(count * depth, sizeof *sent_at);
    if (!sent_at)
        die("clients");
    begun = clock_now = now_ns();
    for (size_t i = 0; i < count; i++) {
        clients[i].sent_at = sent_at + i * depth;
        if (clients[i].phase == OPEN)
            client_ask(&clients[i], depth);
    }
    while ((since = now_ns() - begun) < seconds * 1e9)
        turn(10);
    size_t n = times_n < TIMES ? times_n : TIMES;
    qsort(times, n, sizeof *times, by_size);
    printf("{\"connections\": %zu, \"messages\": %zu, \"rate\": %.0f, ", opened, echoed, echoed * 1e9 / since);
    printf("\"p50_us\": %.1f, \"p99_us\": %.1f, ", n ? times[n / 2] / 1e3 : 0, n ? times[n * 99 / 100] / 1e3 : 0);
    printf("\"errors\": %zu}\n", failed);
}

static void hold(uint64_t begun)
{
    while (echoed + failed < count)
        turn(-1);
    printf("{\"connections\": %zu, \"seconds\": %.3f, \"errors\": %zu}\n", echoed, (now_ns() - begun) / 1e9, failed);
    fflush(stdout);
    size_t before = failed;
    struct pollfd watched[] = {{.fd = 0, .events = POLLIN}, {.fd = epoll, .events = POLLIN}};
    for (;;) {
        poll(watched, 2, -1);
        if (watched[0].revents && read(0, inbox, INBOX) <= 0)
            break;
        if (watched[1].revents)
            turn(0);
    }
    printf("{\"dropped\": %zu}\n", failed - before);
}

int main(int argc, char **argv)
{
    size_t payload = 20;
    double seconds = 3;
    int opcode = 2, option;
    while ((option = getopt(argc, argv, "c:d:s:t:ui")) > 0)
        switch (option) {
        case 'c': count = strtoul(optarg, NULL, 10); break;
        case 'd': depth = strtoul(optarg, NULL, 10); break;
        case 's': payload = strtoul(optarg, NULL, 10); break;
        case 't': seconds = strtod(optarg, NULL); break;
        case 'u': opcode = 1; break;
        case 'i': held = 1; break;
        default: argc = 0;
        }
    if (argc != optind + 2 || !count || !depth) {
        fprintf(stderr, "usage: wsload [-c CONNECTIONS] [-d DEPTH] [-s BYTES] [-t SECONDS] [-u] [-i] PORT PATH\n");
        return 2;
    }
    int port = atoi(argv[optind]);
    snprintf(hello, sizeof hello,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", argv[optind + 1], port);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    tapes_record(payload, opcode);
    struct client *clients = calloc(count, sizeof *clients);
    if (!clients || (epoll = epoll_create1(0)) < 0)
        die("clients");
    uint64_t begun = now_ns();
    for (size_t next = 0; next < count || opening;) {
        while (next < count && opening < HANDSHAKES) {
            client_open(&clients[next], next, port);
            next++;
        }
        if (opening)
            turn(-1);
    }
    if (held)
        hold(begun);
    else
        run(clients, seconds);
    return failed != 0;
}
