"""python recipes/tasks.py --model FOLDER --data FOLDER: the same as `sr-transformers tasks`."""

import sys

from sr_transformers.cli import main

if __name__ == "__main__":
    sys.exit(main(["tasks", *sys.argv[1:]]))
