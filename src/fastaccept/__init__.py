"""fastaccept: a TCP server core that never gets stuck at its limits."""
