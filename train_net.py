#!/usr/bin/env python3
"""Train or evaluate a detector: python train_net.py --config-file configs/… [KEY VALUE …]."""

import sys

try:
    from sn2fpn.engine import main
except ModuleNotFoundError as e:
    if e.name != "sn2fpn":
        raise
    sys.exit(
        "error: sn2fpn is not installed for this Python; run `make install` and use .venv/bin/python, "
        "or run `pip install -e .` in an environment of your own"
    )

if __name__ == "__main__":
    sys.exit(main())
