"""accelerate launch recipes/scaling.py STUDY.yaml --output FOLDER: the same as `sr-transformers scaling run`.

Under `accelerate launch` every run of the study uses all processes, and the first one decides what comes next.
"""

import sys

from sr_transformers.cli import main

if __name__ == "__main__":
    sys.exit(main(["scaling", "run", *sys.argv[1:]]))
