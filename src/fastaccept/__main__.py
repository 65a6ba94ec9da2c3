"""python -m fastaccept: the same as the fastaccept command."""

import sys

from fastaccept.cli import main

if __name__ == "__main__":
    sys.exit(main())
