import subprocess
import sys

import pytest

from gradatim.lab import find, new_paper, papers
from gradatim.lab.paper import module_beside


def test_papers_of_other_packages_are_found(third_party):
    paper = papers()["random-walk"]
    assert paper.module_name == "gradatim_example_paper.random_walk"
    assert [claim.id for claim in paper.claims] == ["C1", "C2", "C3"]
    assert find("random-walk") == paper


def test_our_own_papers_can_all_be_read(recwarn):
    ours = papers()
    assert not recwarn.list
    assert list(ours) == sorted(ours)
    assert all(slug == paper.slug for slug, paper in ours.items())


def test_looking_papers_up_imports_neither_jax_nor_the_modules(third_party):
    code = """
import sys
from gradatim.lab import papers
assert 'random-walk' in papers()
heavy = {'jax', 'xarray', 'matplotlib', 'gradatim_example_paper.random_walk'} & set(sys.modules)
sys.exit(str(heavy) if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(third_party), "PATH": ""})


def test_unknown_slug_names_the_closest(third_party):
    with pytest.raises(ValueError, match=r"there is no paper 'randm-walk' \(did you mean 'random-walk'"):
        find("randm-walk")
    with pytest.raises(ValueError, match=r"there is no paper 'walk' \(did you mean 'random-walk'"):
        find("walk")
    with pytest.raises(ValueError, match=r"there is no paper 'qqqqqqqq'; `gradatim list` shows all \d+"):
        find("qqqqqqqq")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda site: (site / "gradatim_example_paper" / "random_walk.toml").write_text("slug = "), "Invalid value"),
        (lambda site: (site / "gradatim_example_paper" / "random_walk.toml").unlink(), "there is no random_walk.toml beside the module"),
        (lambda site: rename_entry(site, "random-wolk"), "the entry point is named 'random-wolk' but the slug is 'random-walk'"),
        (lambda site: rename_entry(site, "x = no_such_package.x\nrandom-walk"), "there is no package 'no_such_package'"),
    ],
)
def test_a_broken_package_is_named_and_breaks_no_other(third_party, damage, reason):
    damage(third_party)
    with pytest.warns(UserWarning, match=reason):
        found = papers()
    assert "random-clock" in found


def test_a_broken_paper_says_why_when_asked_for(third_party):
    (third_party / "gradatim_example_paper" / "random_walk.toml").write_text('slug = "random-walk"')
    with pytest.raises(ValueError, match=r"paper 'random-walk' cannot be read: random_walk.toml: .* must have the key 'title'"):
        find("random-walk")


def rename_entry(site, name):
    file = next(site.glob("*.dist-info")) / "entry_points.txt"
    file.write_text(file.read_text().replace("random-walk =", f"{name} =", 1))


def test_a_new_paper_is_a_pair_of_files_that_can_be_read(tmp_path):
    toml, module = new_paper("my-idea", tmp_path / "src")
    assert (toml.name, module.name) == ("my_idea.toml", "my_idea.py")
    subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", "--line-length=140", str(module)], check=True)
    from gradatim.lab import read_paper

    assert read_paper(toml).slug == "my-idea"
    with pytest.raises(FileExistsError, match="is there already"):
        new_paper("my-idea", tmp_path / "src")


@pytest.mark.parametrize("slug", ["My-Idea", "my_idea", "", "2-many", "class", "a--b"])
def test_a_new_papers_slug_must_name_a_module(tmp_path, slug):
    with pytest.raises(ValueError, match="slug must be lower-case words"):
        new_paper(slug, tmp_path)


def test_a_new_papers_slug_must_be_free(tmp_path, third_party):
    with pytest.raises(ValueError, match="there is a paper 'random-walk' already"):
        new_paper("random-walk", tmp_path)


def test_an_experiment_is_a_module_or_a_package_beside_its_claims(tmp_path):
    toml = tmp_path / "heavy_ball.toml"
    assert module_beside(toml, "papers") is None
    (tmp_path / "heavy_ball").mkdir()
    assert module_beside(toml, "papers") is None
    (tmp_path / "heavy_ball/__init__.py").touch()
    assert module_beside(toml, "papers") == "papers.heavy_ball"
    (tmp_path / "heavy_ball/__init__.py").rename(tmp_path / "heavy_ball.py")
    assert module_beside(toml, "papers") == "papers.heavy_ball"
