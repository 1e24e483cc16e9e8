"""python recipes/finetune.py RECIPE --model FOLDER --data FOLDER --output FOLDER: the same as `sr-transformers
finetune`, for launchers.

    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/finetune.py recipes/regimes/sparse.yaml ...
"""

import sys

from sr_transformers.cli import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
