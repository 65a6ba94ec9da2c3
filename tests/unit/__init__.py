"""Tests of one module each: no sockets, no clock, no sleeping."""
