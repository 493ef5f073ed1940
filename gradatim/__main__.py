"""`python -m gradatim`: the command line."""

from gradatim.cli import main

raise SystemExit(main())
