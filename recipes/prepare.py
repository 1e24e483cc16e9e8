"""python recipes/prepare.py LOG --output FOLDER: the same as `sr-transformers prepare`."""

import sys

from sr_transformers.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
