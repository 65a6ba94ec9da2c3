"""Connection: the handle that Python holds of a peer. It has a token and no pointer, so that one that is kept for too long finds
nothing instead of somebody else."""
from libc.stdint cimport uint64_t
from fastaccept._conns cimport Connections, conn_t

cdef class Connection:
    cdef Connections table
    cdef uint64_t token
    cdef public object context

    cdef conn_t *_find(self) except? NULL        # NULL: it has ended; raises RuntimeError from a wrong thread
    cdef conn_t *_writable(self) except? NULL    # raises ConnectionClosed; NULL: it has just failed
