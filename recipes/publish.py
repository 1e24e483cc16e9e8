"""python recipes/publish.py RUN_DIR org/name: the same as `sr-transformers publish`."""

import sys

from sr_transformers.cli import main

if __name__ == "__main__":
    sys.exit(main(["publish", *sys.argv[1:]]))
