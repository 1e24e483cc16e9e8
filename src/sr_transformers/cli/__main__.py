import sys

from sr_transformers.cli import main

sys.exit(main())
