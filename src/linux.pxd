"""What the kernel looks like. Extern declarations only; the man page of the same name says the rest."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <arpa/inet.h>
    #include <errno.h>
    #include <fcntl.h>
    #include <fnmatch.h>
    #include <linux/openat2.h>
    #include <linux/sockios.h>
    #include <malloc.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <poll.h>
    #include <pthread.h>
    #include <signal.h>
    #include <string.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/ioctl.h>
    #include <sys/mman.h>
    #include <sys/prctl.h>
    #include <sys/random.h>
    #include <sys/resource.h>
    #include <sys/sendfile.h>
    #include <sys/socket.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <sys/uio.h>
    #include <time.h>
    #include <unistd.h>

    /* sendfile(2) has no MSG_NOSIGNAL: a SIGPIPE of its own is blocked meanwhile, and taken back. For longer it is not,
       for what handlers start would inherit that. */
    static inline ssize_t c1m_sendfile(int out, int file, off_t *offset, size_t n) {
        static const struct timespec now = {0, 0};
        sigset_t pipe, before;
        ssize_t sent;
        int fault;
        sigemptyset(&pipe);
        sigaddset(&pipe, SIGPIPE);
        pthread_sigmask(SIG_BLOCK, &pipe, &before);
        sent = sendfile(out, file, offset, n);
        fault = errno;
        /* A connection that is lost in the middle gives a short count, and the signal all the same. */
        if ((sent < 0 ? fault == EPIPE : (size_t)sent < n) && !sigismember(&before, SIGPIPE))
            while (sigtimedwait(&pipe, NULL, &now) < 0 && errno == EINTR);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        errno = fault;
        return sent;
    }

    /* Where a lost connection or pipe would end the process, it is not to. Python starts so. */
    static inline void c1m_ignore_sigpipe(void) {
        struct sigaction now;
        if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL) signal(SIGPIPE, SIG_IGN);
    }

    /* Bytes that a TCP connection's peer has acknowledged since it was opened (tcpi_bytes_acked, which netinet/tcp.h
       does not know), or -1. */
    static inline long long c1m_acknowledged(int fd) {
        unsigned char info[256];
        socklen_t n = sizeof(info);
        long long acknowledged;
        if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &n) < 0 || n < 128) return -1;
        memcpy(&acknowledged, info + 120, 8);
        return acknowledged;
    }

    /* How often this process or one before it was forked, by whomever: pthread_atfork(3) calls before the fork. */
    static int c1m_forks_seen;
    static inline void c1m_fork_seen(void) { c1m_forks_seen++; }
    static inline int c1m_watch_forks(void) { return pthread_atfork(c1m_fork_seen, NULL, NULL); }

    /* Has malloc keep up to `idle` freed bytes, of blocks below `block` bytes, for what comes next (mallopt(3)). */
    static inline void c1m_keep_freed(int block, int idle) {
    #ifdef __GLIBC__
        mallopt(M_MMAP_THRESHOLD, block);
        mallopt(M_TRIM_THRESHOLD, idle);
    #endif
    }

    /* A lock that threads of several processes share, and that one of them may die with:
       pthread_mutexattr_setrobust(3). 0 or an errno. */
    static inline int c1m_shared_lock_init(pthread_mutex_t *lock) {
        pthread_mutexattr_t kind;
        int fault = pthread_mutexattr_init(&kind);
        if (fault) return fault;
        if (!(fault = pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED)) &&
            !(fault = pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST)))
            fault = pthread_mutex_init(lock, &kind);
        pthread_mutexattr_destroy(&kind);
        return fault;
    }

    /* pthread_mutex_timedlock(3), for so many milliseconds, by a clock that nobody sets where there is such a call. */
    static inline int c1m_lock_for(pthread_mutex_t *lock, int ms) {
    #if defined(__GLIBC__) && __GLIBC_PREREQ(2, 30)
        clockid_t clock = CLOCK_MONOTONIC;
    #else
        clockid_t clock = CLOCK_REALTIME;
    #endif
        struct timespec until;
        clock_gettime(clock, &until);
        until.tv_nsec += ms * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
    #if defined(__GLIBC__) && __GLIBC_PREREQ(2, 30)
        return pthread_mutex_clocklock(lock, clock, &until);
    #else
        return pthread_mutex_timedlock(lock, &until);
    #endif
    }

    /* Bytes that malloc holds and that are not in use; 0 where it does not tell. */
    static inline size_t c1m_free_bytes(void) {
    #if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
        return mallinfo2().fordblks;
    #else
        return 0;
    #endif
    }

    /* Gives them back to the system, page by page, but for `idle` bytes at the end (malloc_trim(3)). */
    static inline void c1m_give_back(int idle) {
    #ifdef __GLIBC__
        malloc_trim(idle);
    #endif
    }
    """
    int errno
    int EAGAIN, EBUSY, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSYS, EPERM, EXDEV, ENOENT, ECONNABORTED
    int ECONNREFUSED, EADDRNOTAVAIL, EINPROGRESS
    int EOWNERDEAD
    int EIO, ESTALE, ETIMEDOUT, EREMOTEIO, ENOTCONN, EUCLEAN

    # clock_gettime(2)
    struct timespec:
        long tv_sec
        long tv_nsec

    # epoll(7)
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLL_CLOEXEC
    uint32_t EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLET, EPOLLEXCLUSIVE
    int epoll_create1(int flags) noexcept nogil
    int epoll_ctl(int epoll, int op, int fd, epoll_event *event) noexcept nogil
    int epoll_wait(int epoll, epoll_event *events, int most, int timeout_ms) noexcept nogil

    # poll(2)
    struct pollfd:
        int fd
        short events
    short POLLIN
    int ppoll(pollfd *fds, unsigned long n, const timespec *wait, const void *mask) noexcept nogil

    # prctl(2)
    int PR_SET_PDEATHSIG, PR_SET_TIMERSLACK, SIGKILL
    int prctl(int option, ...) noexcept nogil

    # eventfd(2)
    int EFD_NONBLOCK, EFD_CLOEXEC
    int eventfd(unsigned int value, int flags) noexcept nogil

    # socket(7), send(2), sendfile(2)
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    int SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL, MSG_MORE, SHUT_WR
    struct sockaddr:
        unsigned short sa_family
    int socket(int family, int kind, int protocol) noexcept nogil
    int c_bind "bind"(int fd, const sockaddr *address, unsigned int n) noexcept nogil
    int c_connect "connect"(int fd, const sockaddr *address, unsigned int n) noexcept nogil
    int SOCK_STREAM, SOL_SOCKET, SO_ERROR, IPPROTO_IP, IPPROTO_TCP, TCP_NODELAY, IP_BIND_ADDRESS_NO_PORT
    int getsockopt(int fd, int level, int option, void *value, unsigned int *n) noexcept nogil
    int setsockopt(int fd, int level, int option, const void *value, unsigned int n) noexcept nogil
    int accept4(int fd, sockaddr *address, unsigned int *length, int flags) noexcept nogil
    ssize_t recv(int fd, void *bytes, size_t n, int flags) noexcept nogil
    ssize_t send(int fd, const void *bytes, size_t n, int flags) noexcept nogil
    ssize_t sendmsg(int fd, const msghdr *message, int flags) noexcept nogil
    ssize_t sendfile "c1m_sendfile"(int out, int file, int64_t *offset, size_t n) noexcept nogil
    int SHUT_RDWR
    int shutdown(int fd, int how) noexcept nogil
    unsigned long FIONREAD       # tcp(7), unix(7): bytes that wait to be received
    unsigned long SIOCOUTQ       # tcp(7), unix(7): bytes sent and not yet acknowledged, or not yet read
    int ioctl(int fd, unsigned long request, ...) noexcept nogil

    # tcp(7)
    int64_t tcp_acknowledged "c1m_acknowledged"(int fd) noexcept nogil

    # ip(7), ipv6(7), inet_ntop(3), inet_pton(3)
    struct in_addr:
        pass
    struct in6_addr:
        pass
    struct sockaddr_in:
        in_addr sin_addr
    struct sockaddr_in6:
        in6_addr sin6_addr
    struct sockaddr_storage:
        unsigned short ss_family
    int AF_UNSPEC, AF_INET, AF_INET6, AF_UNIX
    int inet_pton(int family, const char *text, void *to) noexcept nogil
    const char *inet_ntop(int family, const void *address, char *to, unsigned int n) noexcept nogil

    # pthread_self(3), pthread_mutex_lock(3), pthread_cond_timedwait(3)
    unsigned long pthread_self() noexcept nogil
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *lock, void *attributes) noexcept nogil
    int pthread_mutex_destroy(pthread_mutex_t *lock) noexcept nogil
    int pthread_mutex_lock(pthread_mutex_t *lock) noexcept nogil
    int pthread_mutex_unlock(pthread_mutex_t *lock) noexcept nogil
    int pthread_mutex_trylock(pthread_mutex_t *lock) noexcept nogil
    int pthread_mutex_consistent(pthread_mutex_t *lock) noexcept nogil
    int shared_lock_init "c1m_shared_lock_init"(pthread_mutex_t *lock) noexcept nogil
    int lock_for "c1m_lock_for"(pthread_mutex_t *lock, int ms) noexcept nogil
    ctypedef struct pthread_cond_t:
        pass
    ctypedef struct pthread_condattr_t:
        pass
    int pthread_condattr_init(pthread_condattr_t *attributes) noexcept nogil
    int pthread_condattr_setclock(pthread_condattr_t *attributes, int clock) noexcept nogil
    int pthread_condattr_destroy(pthread_condattr_t *attributes) noexcept nogil
    int pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes) noexcept nogil
    int pthread_cond_destroy(pthread_cond_t *condition) noexcept nogil
    int pthread_cond_broadcast(pthread_cond_t *condition) noexcept nogil
    int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock, const timespec *until) noexcept nogil

    # open(2), openat2(2), fstat(2)
    struct stat_t "stat":
        uint64_t st_dev
        uint64_t st_ino
        uint32_t st_mode
        int64_t st_size
        timespec st_mtim
        timespec st_ctim
    struct open_how:
        uint64_t flags
        uint64_t mode
        uint64_t resolve
    int O_RDONLY, O_NONBLOCK, O_CLOEXEC, O_NOCTTY, O_PATH, O_DIRECTORY
    uint64_t RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS
    long SYS_openat2
    long syscall(long number, ...) noexcept nogil
    int c_open "open"(const char *path, int flags) noexcept nogil
    int openat(int dir, const char *path, int flags) noexcept nogil
    int fstat(int fd, stat_t *out) noexcept nogil
    bint S_ISREG(uint32_t mode) noexcept nogil
    bint S_ISDIR(uint32_t mode) noexcept nogil
    ssize_t pread(int fd, void *bytes, size_t n, int64_t offset) noexcept nogil
    ssize_t c_read "read"(int fd, void *bytes, size_t n) noexcept nogil
    ssize_t c_write "write"(int fd, const void *bytes, size_t n) noexcept nogil
    ssize_t readlink(const char *path, char *out, size_t n) noexcept nogil
    int fcntl(int fd, int command, ...) noexcept nogil
    int F_DUPFD_CLOEXEC
    int close(int fd) noexcept nogil

    # getrandom(2)
    ssize_t getrandom(void *to, size_t n, unsigned int flags) noexcept nogil

    # fnmatch(3)
    int fnmatch(const char *pattern, const char *name, int flags) noexcept nogil

    # mmap(2)
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_SHARED, MAP_ANONYMOUS, MAP_NORESERVE
    void *MAP_FAILED
    void *mmap(void *at, size_t n, int protection, int flags, int fd, int64_t offset) noexcept nogil
    int munmap(void *at, size_t n) noexcept nogil
    int MADV_DONTNEED, MADV_REMOVE
    int madvise(void *at, size_t n, int advice) noexcept nogil

    # signal(7)
    void ignore_sigpipe "c1m_ignore_sigpipe"() noexcept nogil

    # pthread_atfork(3); of one module, which must have called watch_forks
    int forks_seen "c1m_forks_seen"
    int watch_forks "c1m_watch_forks"() noexcept nogil

    # usleep(3)
    int usleep(unsigned int us) noexcept nogil

    # mallopt(3), where there is one
    void keep_freed "c1m_keep_freed"(int block, int idle) noexcept nogil
    size_t free_bytes "c1m_free_bytes"() noexcept nogil
    void give_back "c1m_give_back"(int idle) noexcept nogil

    # getrlimit(2)
    struct rlimit_t "rlimit":
        uint64_t rlim_cur
        uint64_t rlim_max
    int RLIMIT_NOFILE
    int getrlimit(int what, rlimit_t *out) noexcept nogil
    int setrlimit(int what, const rlimit_t *to) noexcept nogil

    # clock_gettime(2), gmtime_r(3)
    struct tm:
        int tm_sec, tm_min, tm_hour, tm_mday, tm_mon, tm_year, tm_wday
    int CLOCK_MONOTONIC, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_THREAD_CPUTIME_ID
    int CLOCK_PROCESS_CPUTIME_ID
    int clock_gettime(int clock, timespec *out) noexcept nogil
