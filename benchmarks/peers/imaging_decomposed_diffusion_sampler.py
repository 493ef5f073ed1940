"""Projections of an image by scikit-image 0.26.0: seconds as JSON.

`--values` instead prints the projections, and the structural similarity of two images.
"""

from __future__ import annotations

import argparse
import json

import shapes
import skimage
import timing
from skimage.metrics import structural_similarity
from skimage.transform import radon


def main() -> None:
    """Prints one JSON list, or the values."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", action="store_true")
    clean, other = shapes.pair()
    if parser.parse_args().values:
        similarity = structural_similarity(clean, other, data_range=shapes.RANGE)
        print(json.dumps({"projections": radon(clean, theta=shapes.angles()).T.tolist(), "similarity": float(similarity)}))
        return
    seconds = timing.median(lambda: radon(clean, theta=shapes.angles()))
    print(json.dumps([{"group": shapes.GROUP, "name": f"scikit-image {skimage.__version__}", "seconds": seconds, "info": {}}]))


if __name__ == "__main__":
    main()
