"""python recipes/data.py describe LOG, or append FOLDER LOG --output FOLDER: the same as `sr-transformers data`."""

import sys

from sr_transformers.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", *sys.argv[1:]]))
