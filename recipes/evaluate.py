"""python recipes/evaluate.py --model FOLDER --data FOLDER: the same as `sr-transformers evaluate`."""

import sys

from sr_transformers.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
