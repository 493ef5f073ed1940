import subprocess
import sys

import pytest

from gradatim.datasets import load


def test_unknown_name_suggests_a_known_one():
    with pytest.raises(ValueError, match=r"name must be one of fashion-mnist, mnist-5k, digits, got 'digit' \(did you mean 'digits'\?\)"):
        load("digit")


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'validation'"):
        load("digits", split="validation")


def test_subset_and_pooling():
    data = load("digits", split="test", n=50, seed=1, pool=4)
    assert data.images.shape == (50, 4, 4, 1) and len(data) == 50


def test_loads_without_jax_or_the_shipping_packages():
    code = "import sys, gradatim.datasets as d; d.load('digits'); print({'jax', 'sklearn', 'pooch', 'mlxtend'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
