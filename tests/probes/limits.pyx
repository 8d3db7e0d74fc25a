"""The limits of each address as tests see them."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from c1m.address cimport Address, address_parse
from c1m.buf cimport Slice
from c1m.limits cimport (
    Limits, limits_connect, limits_disconnect, limits_forget, limits_free, limits_has_room, limits_init,
    limits_upgrade,
)

cdef class Table:
    """Limits as Python sees them; times are in nanoseconds."""

    cdef Limits l
    cdef uint64_t count

    def __cinit__(self, uint32_t connections, uint32_t upgrades, uint32_t most=1):
        memset(&self.l, 0, sizeof(Limits))
        self.l.count = &self.count
        if not limits_init(&self.l, connections, upgrades, most):
            raise MemoryError

    def __dealloc__(self):
        limits_free(&self.l)

    cdef Address address(self, str text) except *:
        cdef Address found
        cdef bytes encoded = text.encode()
        assert address_parse(Slice(encoded, len(encoded)), &found)
        return found

    def has_room(self, str address):
        cdef Address a = self.address(address)
        return limits_has_room(&self.l, &a)

    def connect(self, str address, int64_t now):
        cdef Address a = self.address(address)
        return limits_connect(&self.l, &a, now)

    def disconnect(self, str address, int64_t now):
        cdef Address a = self.address(address)
        limits_disconnect(&self.l, &a, now)

    def upgrade(self, str address, int64_t now):
        cdef Address a = self.address(address)
        return limits_upgrade(&self.l, &a, now)

    def forget(self, int64_t now):
        limits_forget(&self.l, now)

    @property
    def count(self):
        return self.count

    @property
    def capacity(self):
        return self.l.capacity

    @property
    def used(self):
        """Entries that were ever used."""
        return self.l.top - 1

    def chain_lengths(self):
        """How many clients each bucket has."""
        cdef uint32_t i, bucket, length
        lengths = []
        for bucket in range(self.l.mask + 1):
            length, i = 0, self.l.buckets[bucket]
            while i:
                length += 1
                i = self.l.clients[i].chain
            lengths.append(length)
        return lengths
