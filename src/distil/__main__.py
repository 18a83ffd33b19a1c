"""`python -m distil` is the command `distil`."""

import sys

from distil.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
