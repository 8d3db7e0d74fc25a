"""The socket's edge: every byte that a connection receives or sends passes here, and nowhere else. Inline only.

TLS is to stand here: what the callers may rely on is written as it can hold for records as well as for bytes. Knows no
connection, no buffer, no counter: descriptors and memory only.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset

from c1m.linux cimport (
    EAGAIN, EINTR, FIONREAD, MSG_MORE, MSG_NOSIGNAL, SHUT_WR, SIOCOUTQ, errno, ioctl, iovec, msghdr, pread, recv,
    send, sendfile, sendmsg, shutdown, tcp_acknowledged,
)

cdef enum:
    NET_AGAIN = -1               # nothing to be had, or nothing taken, until epoll says so
    NET_LOST = -2                # the connection is broken
    NET_UNREADABLE = -3          # the file can't be read: errno says why
    COPY_SIZE = 32 << 10         # bytes of a file that are read at once where the kernel does not send them itself


cdef inline ssize_t net_result(ssize_t n) noexcept nogil:
    if n >= 0:
        return n
    return NET_AGAIN if errno == EAGAIN or errno == EINTR else NET_LOST


cdef inline ssize_t net_recv(int fd, void *to, size_t n) noexcept nogil:
    """Bytes received, 0 at the end of the stream, NET_AGAIN or NET_LOST. Fewer than n: there were no more."""
    return net_result(recv(fd, to, n, 0))


cdef inline ssize_t net_send(int fd, const void *bytes, size_t n, bint more) noexcept nogil:
    """Bytes taken of n > 0, NET_AGAIN or NET_LOST. Fewer than n: the kernel's buffer is full. more: others follow."""
    return net_result(send(fd, bytes, n, MSG_NOSIGNAL | (MSG_MORE if more else 0)))


cdef inline ssize_t net_sendv(int fd, iovec *runs, int n, bint more) noexcept nogil:
    """The same of n runs of bytes."""
    cdef msghdr message
    memset(&message, 0, sizeof(message))
    message.msg_iov, message.msg_iovlen = runs, n
    return net_result(sendmsg(fd, &message, MSG_NOSIGNAL | (MSG_MORE if more else 0)))


cdef inline ssize_t net_sendfile(int fd, int file, int64_t at, size_t n) noexcept nogil:
    """The same of n bytes of a file, or NET_UNREADABLE; 0 where it has become shorter. Fewer than n says nothing of the
    buffer."""
    cdef ssize_t sent = sendfile(fd, file, &at, n)
    return net_result(sent) if sent >= 0 or errno == EAGAIN or errno == EINTR else net_copy(fd, file, at, n)


cdef inline ssize_t net_copy(int fd, int file, int64_t at, size_t n) noexcept nogil:
    """net_sendfile by reading and sending, as some file systems and sandboxes ask for. It tells, too, which of the two
    ends has failed, where sendfile(2) does not."""
    cdef uint8_t[COPY_SIZE] bytes
    cdef ssize_t got = pread(file, bytes, min(n, <size_t>COPY_SIZE), at)
    while got < 0 and errno == EINTR:
        got = pread(file, bytes, min(n, <size_t>COPY_SIZE), at)
    if got < 0:
        return NET_UNREADABLE
    return net_send(fd, bytes, got, <size_t>got < n) if got else 0


cdef inline int net_unread(int fd) noexcept nogil:
    """Bytes that the client has sent and nobody has received."""
    cdef int n = 0
    ioctl(fd, FIONREAD, &n)
    return n


cdef inline int net_unacknowledged(int fd) noexcept nogil:
    """Bytes that the kernel holds because the client has not taken them."""
    cdef int n = 0
    ioctl(fd, SIOCOUTQ, &n)
    return n


cdef inline int64_t net_taken(int fd) noexcept nogil:
    """A number that grows whenever the client takes some of what the kernel holds for it; on a Unix-domain socket it
    shrinks by what is sent."""
    cdef int64_t taken = tcp_acknowledged(fd)
    return taken if taken >= 0 else -<int64_t>net_unacknowledged(fd)


cdef inline void net_end(int fd) noexcept nogil:
    """Nothing more will be sent: the client sees the end of the stream."""
    shutdown(fd, SHUT_WR)
