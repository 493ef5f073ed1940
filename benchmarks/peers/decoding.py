"""What is decoded, for all contestants. The standard library only."""

from __future__ import annotations

WORK = {
    "1,024 characters of one text, one layer of width 512, 8 heads": (1024, 512, 8, 1, 1),
    "1,024 characters of one text, 8 layers of width 512, 8 heads": (1024, 512, 8, 1, 8),
    "1,024 characters of one text, 8 layers of width 512, 4 heads": (1024, 512, 4, 1, 8),
    "1,024 characters of one text, 4 layers of width 256, 4 heads": (1024, 256, 4, 1, 4),
    "1,024 characters of one text, 2 layers of width 64, 4 heads": (1024, 64, 4, 1, 2),
    "4,096 characters of one text, 4 layers of width 512, 8 heads": (4096, 512, 8, 1, 4),
    "4,096 characters of one text, 4 layers of width 512, 4 heads": (4096, 512, 4, 1, 4),
    "1,024 characters of 8 texts, 4 layers of width 512, 8 heads": (1024, 512, 8, 8, 4),
    "1,024 characters of 8 texts, 4 layers of width 512, 4 heads": (1024, 512, 4, 8, 4),
    "1,024 characters of 8 texts, 4 layers of width 256, 4 heads": (1024, 256, 4, 8, 4),
}
"Tokens, width, heads, texts and layers."
