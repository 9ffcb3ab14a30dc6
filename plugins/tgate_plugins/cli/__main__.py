"""`python -m tgate_plugins.cli`, the same as `tgate-sampling`."""

import sys

from tgate_plugins.cli import main

sys.exit(main())
