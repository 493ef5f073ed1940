from dataclasses import asdict

import pytest

from gradatim.lab import open_record, papers, read_scorecard
from gradatim.lab.records import jsonable
from gradatim.lab.scorecard import RESULTS, other_seeds


@pytest.mark.parametrize("slug", sorted(read_scorecard()))
def test_results_are_of_the_experiment_as_it_is(slug, pytestconfig):
    folder = pytestconfig.rootpath / RESULTS / slug
    today = jsonable(asdict(papers()[slug].module().SCALES["laptop"]))
    for record in (open_record(folder), *other_seeds(folder)):
        assert dict(record.config) == today, f"seed {record.seed} is of another configuration: run it again"
