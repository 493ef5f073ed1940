"""What is decoded, for all contestants. The standard library only."""

from __future__ import annotations

HEADS = 8
WORK = {
    "1,024 characters of one text, one layer of width 512": (1024, 512, 1, 1),
    "1,024 characters of one text, 8 layers of width 512": (1024, 512, 1, 8),
    "4,096 characters of one text, 4 layers of width 512": (4096, 512, 1, 4),
    "1,024 characters of 8 texts, 4 layers of width 256": (1024, 256, 8, 4),
    "1,024 characters of 8 texts, 4 layers of width 512": (1024, 512, 8, 4),
}
"Tokens, width, texts and layers."
