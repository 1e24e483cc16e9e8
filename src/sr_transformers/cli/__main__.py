"""`python -m sr_transformers.cli`: the command where no script is on the path."""

import sys

from sr_transformers.cli import main

sys.exit(main())
