"""`python -m hybridq.cli` is `hybridq`."""

import sys

from . import main

sys.exit(main())
