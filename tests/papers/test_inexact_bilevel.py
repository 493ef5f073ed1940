from pathlib import Path

import jax
import numpy as np
import pytest

import gradatim.papers
from gradatim.lab import read_paper, validate
from gradatim.lab.session import Session
from gradatim.papers import inexact_bilevel as paper_module


@pytest.fixture(scope="module")
def findings():
    with jax.enable_x64(True):
        session = Session(jax.random.key(0), precision="double", scale="smoke")
        return paper_module.run(paper_module.SCALES["smoke"], session)


@pytest.fixture(scope="module")
def paper():
    return read_paper(Path(gradatim.papers.__file__).parent / "inexact_bilevel.toml")


def test_every_part_is_measured_or_says_why_not(findings, paper):
    parts = {f"{claim.id}.{part.name}" for claim in paper.claims for part in claim.parts}
    assert set(findings.measures) | set(findings.untested) == parts
    assert not set(findings.measures) & set(findings.untested)


@pytest.mark.parametrize("claim", ["C1", "C2", "C3"])
def test_what_is_proved_holds_at_every_scale(findings, paper, claim):
    chosen = next(entry for entry in paper.claims if entry.id == claim)
    assert chosen.judge(findings.measures, "laptop", findings.untested)["verdict"] == "holds"


def test_a_coarse_fixed_accuracy_stalls(findings):
    assert findings.measures["C4.stalled_over_adaptive"].value > 10


def test_a_run_that_never_stepped_is_told_apart(findings):
    coarse = findings.data["quadratic"].to_dataset().sel(way="fixed").isel(accuracy=0)
    assert float(coarse["steps"]) < 5 and np.isfinite(coarse["final_gap"])


def test_figures_are_drawn_from_the_findings(findings):
    assert set(paper_module.draw(findings)) == {"quadratic", "well", "penalties", "landscape", "denoised"}


def test_data_have_units(findings):
    for name, node in findings.data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


@pytest.mark.parametrize("scale", paper_module.SCALES)
def test_configurations_are_in_range_and_fit(scale):
    validate(paper_module.SCALES[scale])
    assert 0 < paper_module.memory(paper_module.SCALES[scale]) < 4e9
