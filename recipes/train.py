"""accelerate launch recipes/train.py RECIPE --data FOLDER --output FOLDER: the same as `sr-transformers train`.

Under `accelerate launch` (recipes/accelerate holds configurations) it trains on several processes, GPUs or machines.
"""

import sys

from sr_transformers.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
