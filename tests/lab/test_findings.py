import pytest
import xarray as xr

from gradatim.lab import Findings, Measure


def found(name, value):
    return Findings(
        {f"C1.{name}": Measure.exact(value)}, xr.DataTree.from_dict({name: xr.Dataset({"x": ("t", [value])})}), {f"C2.{name}": "no"}
    )


def test_parts_are_joined():
    whole = Findings.joined([found("a", 1.0), found("b", 2.0)])
    assert list(whole.measures) == ["C1.a", "C1.b"] and whole.untested == {"C2.a": "no", "C2.b": "no"}
    assert whole.data["b"].to_dataset().x.values.tolist() == [2.0] and set(whole.data.children) == {"a", "b"}


def test_what_two_parts_found_is_refused():
    with pytest.raises(ValueError, match=r"must not share what they find, got C1\.a, C2\.a, a twice"):
        Findings.joined([found("a", 1.0), found("a", 2.0)])
