"""HTTP as a load speaks it. See loadhttp.pyx."""

from c1m.loadconn cimport Load

cdef void loadhttp_add(Load *load) noexcept nogil
