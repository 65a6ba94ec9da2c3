"""Windows only: AcceptEx and completions, with failures put in the place of Winsock's calls and real sockets around them."""
