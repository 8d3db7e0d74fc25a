"""Words that threads and processes share: ordered loads and stores (inline only).

Those are GCC's builtins, which order what stands around them, too, for the compiler and for the processor.
"""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    /* What was stored before the store_release that this sees is seen after it. */
    #define c1m_load(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
    #define c1m_store(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
    #define c1m_add(p, n) __atomic_fetch_add(p, n, __ATOMIC_ACQ_REL)
    #define c1m_or(p, bits) __atomic_fetch_or(p, bits, __ATOMIC_ACQ_REL)
    #define c1m_and(p, bits) __atomic_fetch_and(p, bits, __ATOMIC_ACQ_REL)
    /* Nothing is moved across it. */
    #define c1m_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
    """
    uint64_t load_acquire "c1m_load"(const uint64_t *p) noexcept nogil
    void store_release "c1m_store"(uint64_t *p, uint64_t v) noexcept nogil
    uint64_t atomic_add "c1m_add"(uint64_t *p, uint64_t n) noexcept nogil     # returns what was there
    uint64_t atomic_or "c1m_or"(uint64_t *p, uint64_t bits) noexcept nogil
    uint64_t atomic_and "c1m_and"(uint64_t *p, uint64_t bits) noexcept nogil
    void fence "c1m_fence"() noexcept nogil
