"""`python -m avt_jax` is `avt`."""

import sys

from avt_jax.cli.main import main

sys.exit(main())
