"""The command `sn2fpn`, which is also `python -m sn2fpn`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
