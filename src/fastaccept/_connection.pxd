"""Connection: the handle that Python holds of a peer. It has a token and no pointer, so that one that is kept for too long finds
nothing instead of somebody else."""
cimport cython
from libc.stdint cimport uint64_t
from fastaccept._conns cimport Connections, conn_t


@cython.final
cdef class Connection:
    cdef Connections table
    cdef uint64_t token
    cdef public object context
