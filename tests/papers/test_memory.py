from pathlib import Path

import pytest

import gradatim
from gradatim.lab import find, open_record
from gradatim.lab.environment import OWN_MEMORY

RESULTS = Path(gradatim.__file__).parents[1] / "results"


@pytest.mark.parametrize("slug", sorted(folder.name for folder in RESULTS.glob("*/")))
def test_the_estimate_that_may_refuse_a_run_is_near_the_peak_of_the_last_one(slug):
    record, module = open_record(RESULTS / slug), find(slug).module()
    assert 0.4 < (module.memory(module.SCALES[record.scale]) + OWN_MEMORY) / record.peak_memory < 2.5
