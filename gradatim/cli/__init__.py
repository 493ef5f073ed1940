"""The command line: `gradatim list | show | run | search | compare | cite | new-paper | doctor`."""

from .commands import main as main
