"""`python -m sal_fast` is `sal-fast`."""

import sys

from sal_fast.cli import main

sys.exit(main())
