"""HTTP/1.1 as a load speaks it: responses, and when a connection has to make place for another.

Owns: what a response means for its client. Refuses to know: when a request is sent, processes, Python.

Most responses are the last one again. The bytes of its head are remembered with what they mean, and whoever sends the
same bytes means the same; any other head is parsed.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

from c1m.http cimport (
    AT_HEAD, CHUNKED, END_BETWEEN, END_OF_BODY, FOR_HEAD, HTTP_FAIL, HTTP_INTERIM, HTTP_MORE, HTTP_RESPONSE,
    KEEP_ALIVE, HttpParser, HttpResponse, http_response_end, http_response_next,
)
from c1m.loadconn cimport (
    MEMO, Client, Load, Memo, client_answered, client_broken, client_closed, client_expired, client_failed, client_of,
    client_opened, counting, nothing,
)
from c1m.reactor cimport (
    CLIENT_DONE, Conn, Protocol, conn_deadline, conn_ending, nanoseconds, protocol_add,
)
from c1m.tally cimport BAD_STATUS, CUT, NO_FAULT, RESET, Fault


cdef void loadhttp_add(Load *load) noexcept nogil:
    """Has the load's connections speak HTTP."""
    load.protocol = protocol_add(load.r, Protocol(
        owner=load, opened=loadhttp_opened, readable=loadhttp_readable, drained=nothing, expired=client_expired,
        shutdown=nothing, spread=False, closed=loadhttp_closed, failed=client_failed,
        reads_while_writing=True,
    ))


cdef void loadhttp_opened(void *owner, Conn *c) noexcept nogil:
    client_opened(<Load *>owner, c, client_of(c))


cdef size_t loadhttp_readable(void *owner, Conn *c, uint8_t *bytes, size_t n) noexcept nogil:
    cdef Load *load = <Load *>owner
    cdef Client *cl = client_of(c)
    cdef HttpParser *p = <HttpParser *>c.parser
    cdef int64_t now = nanoseconds()
    cdef size_t used = 0, step
    cdef uint32_t whole = 0
    while used < n and not conn_ending(c):
        if whole == cl.flight and p.phase == AT_HEAD:
            client_broken(load, c, b"a response to no request")
            break
        if p.phase == AT_HEAD and remembered(&load.memo, bytes + used, n - used):
            status_count(load, load.memo.status)
            used += load.memo.total
            whole += 1
            continue
        step = http_response_next(p, load.expect, bytes + used, n - used, &load.response)
        if load.response.kind == HTTP_FAIL:
            client_broken(load, c, b"a response that is not HTTP/1.1")
        if load.response.kind == HTTP_FAIL or load.response.kind == HTTP_MORE:
            break
        if load.response.kind == HTTP_RESPONSE:
            head(load, cl, bytes + used, step)
        used += step
        if p.phase == AT_HEAD and load.response.kind != HTTP_INTERIM:
            whole += 1
    if counting(load):
        load.tally.bytes_in += used
    if cl.closing:
        conn_deadline(load.r, c, load.timeout)
    if whole and not conn_ending(c):
        client_answered(load, c, cl, whole, now)
    return used


cdef inline bint remembered(const Memo *memo, const uint8_t *bytes, size_t n) noexcept nogil:
    """Whether the last response comes again, and is whole."""
    return memo.n != 0 and n >= memo.total and memcmp(bytes, memo.head, memo.n) == 0


cdef inline void status_count(Load *load, uint32_t status) noexcept nogil:
    if counting(load):
        load.tally.statuses[status] += 1
        if status >= 400:
            load.tally.faults[<int>BAD_STATUS] += 1


cdef void head(Load *load, Client *cl, const uint8_t *bytes, size_t n) noexcept nogil:
    """A response's head of n bytes."""
    cdef const HttpResponse *response = &load.response
    status_count(load, response.status)
    load.memo.n = 0
    if not response.flags & KEEP_ALIVE:
        cl.closing = True
    elif n <= MEMO and not response.flags & CHUNKED:
        load.memo.n = n
        memcpy(load.memo.head, bytes, n)
        load.memo.status = response.status
        load.memo.total = n
        if not (load.expect & FOR_HEAD or response.status == 204 or response.status == 304):
            load.memo.total += response.content_length


cdef void loadhttp_closed(void *owner, Conn *c) noexcept nogil:
    """A server may end a connection between responses as it likes; elsewhere it is a fault."""
    cdef Load *load = <Load *>owner
    cdef Client *cl = client_of(c)
    cdef HttpParser *p = <HttpParser *>c.parser
    cdef Fault fault = CUT if c.flags & CLIENT_DONE else RESET
    if cl.fault == NO_FAULT and c.flags & CLIENT_DONE:
        if http_response_end(p, 0) == END_OF_BODY and cl.flight:
            client_answered(load, c, cl, 1, nanoseconds())
            fault = NO_FAULT
        elif http_response_end(p, 0) == END_BETWEEN and c.input == NULL and (cl.closing or cl.flight == 0):
            fault = NO_FAULT
    client_closed(load, c, fault)
