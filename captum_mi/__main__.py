"""``python -m captum_mi``."""

import sys

from captum_mi.cli import main

if __name__ == "__main__":
    sys.exit(main())
