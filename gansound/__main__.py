"""``python -m gansound`` is ``gansound``."""

import sys

from gansound.cli import main

if __name__ == "__main__":
    sys.exit(main())
