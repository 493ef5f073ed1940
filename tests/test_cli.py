import contextlib
import dataclasses
import importlib.util
import io
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gradatim
from gradatim.cli import main, running
from gradatim.cli.entries import citation, full_entry
from gradatim.lab.registry import papers
from gradatim.lab.request import RunOutcome

THIRD_PARTY = Path(__file__).parent / "third_party"


@pytest.fixture(scope="module", autouse=True)
def example_papers(tmp_path_factory):
    """The example papers `random-walk` and `random-clock`, as another package's."""
    spec = importlib.util.spec_from_file_location("lab_fixtures", Path(__file__).parent / "lab" / "conftest.py")
    fixtures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fixtures)
    site = tmp_path_factory.mktemp("third_party") / "site-packages"
    fixtures.install(THIRD_PARTY, site)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        yield
        for name in [name for name in sys.modules if name.startswith("gradatim_example_paper")]:
            patch.delitem(sys.modules, name)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What a real run printed, as JSON, with three fields changed."""
    words = ["run", "random-walk", "--scale", "smoke", "--runs", str(tmp_path_factory.mktemp("runs")), "--seed", "1", "--json"]
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        assert main([*words, "--walkers.n_walkers", "100", "--ages", "3", "4", "5"]) == 0
    (printed,) = json.loads(stdout.getvalue())
    return printed


@pytest.fixture
def asked(monkeypatch):
    """Takes the place of the runs: keeps what was asked for, and answers with the outcomes put into it."""

    class Asked(list):
        def __init__(self):
            self.requests, self.options, self.scorecard, self.updated = [], {}, {}, []

        def __call__(self, requests, *, on_outcome, **options):
            self.requests, self.options = list(requests), options
            outcomes = [self.pop(0) if self else RunOutcome(request.slug, request.scale, "ok") for request in self.requests]
            for outcome in outcomes:
                on_outcome(outcome)
            return outcomes

        def write(self, record):
            self.updated.append(record)
            return Path("results/random-walk")

    asked = Asked()
    monkeypatch.setattr("gradatim.lab.run.run_papers", asked)
    monkeypatch.setattr("gradatim.lab.scorecard.read_scorecard", lambda root=None: asked.scorecard)
    monkeypatch.setattr(
        "gradatim.lab.scorecard.update_scorecard", lambda record: asked.updated.append(record) or Path("results/random-walk")
    )
    return asked


def verdict(word):
    numbers = {"value": 0.5, "low": 0.4, "high": 0.6, "unit": "", "criterion": "0.5 ± 0.1", "paper": 0.5, "reason": ""}
    return {"verdict": word, **numbers}


def refused(capsys, *words):
    """The one line that bad input leaves on stderr."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gradatim: ")
    assert err.count("\n") == 1
    return err


# Papers


def test_list_is_the_registry(capsys):
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["slug"] for entry in listed] == list(papers())
    assert set(listed[0]) == {"slug", "title", "arxiv", "date", "tags", "implemented", "claims"}
    walk = next(entry for entry in listed if entry["slug"] == "random-walk")
    assert (walk["date"], walk["implemented"], walk["claims"]) == ("2026-01-01", True, ["C1", "C2", "C3"])
    assert main(["list"]) == 0
    assert "random-walk" in capsys.readouterr().out


def test_every_paper_is_listed_with_its_claims_whether_it_is_implemented_or_not(capsys):
    files = {path.stem.replace("_", "-") for path in (Path(gradatim.__file__).parent / "papers").glob("*.toml")}
    assert len(files) == 32
    assert main(["list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
    for slug, paper in papers().items():
        assert ("not implemented yet" in lines[slug]) != paper.implemented
    assert files <= set(lines)


def test_show_tells_claims_method_and_citation(capsys):
    assert main(["show", "random-walk"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "The square-root law of the random walk",
        "https://arxiv.org/abs/0000.00001",
        "every way in which a run can end badly",
        "0.5 ± 0.1",
        "– untested",
        "for ever takes too long",
        "@misc{random-walk,",
    ):
        assert words in shown
    assert main(["show", "random-walk", "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["claims"][0]["parts"][0]["criterion"] == "0.5 ± 0.1"
    assert card["claims"][0]["verdict"] is None


def test_show_takes_verdicts_from_the_scorecard(capsys, asked):
    asked.scorecard["random-walk"] = {"claims": {"C1": verdict("holds")}}
    assert main(["show", "random-walk"]) == 0
    shown = capsys.readouterr().out
    assert "✓ holds" in shown
    assert "0.5 [0.4, 0.6]" in shown
    assert main(["list"]) == 0
    assert "1 ✓ holds" in capsys.readouterr().out


def test_show_says_where_seeds_disagree(capsys, asked):
    asked.scorecard["random-walk"] = {"claims": {"C1": {**verdict("undecided"), "reason": "holds with seed 0, fails with seed 1"}}}
    assert main(["show", "random-walk"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "? undecided" in shown and "0.5 [0.4, 0.6] (holds with seed 0, fails with seed 1)" in shown


def test_show_names_what_to_import(capsys, tmp_path, monkeypatch):
    module = tmp_path / "paper_that_imports.py"
    module.write_text('"""Steps."""\nfrom gradatim.lab import Findings\nfrom gradatim.optim import diffgrad\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    paper = dataclasses.replace(papers()["random-walk"], module_name="paper_that_imports")
    assert full_entry(paper, {})["imports"] == ["from gradatim.optim import diffgrad"]


def test_cite_is_bibtex(capsys):
    assert main(["cite", "random-walk"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "@misc{random-walk,",
        "  title = {{The square-root law of the random walk}},",
        "  year = {2026},",
        "  month = jan,",
        "  eprint = {0000.00001},",
        "  archiveprefix = {arXiv},",
        "  url = {https://arxiv.org/abs/0000.00001},",
        "}",
    ]


def test_a_citation_is_safe_for_tex_and_names_no_archive_that_there_is_not():
    paper = dataclasses.replace(papers()["random-walk"], title="R&D_1 at 5 % of $3 (#2)", arxiv="")
    assert citation(paper).splitlines() == [
        "@misc{random-walk,",
        r"  title = {{R\&D\_1 at 5 \% of \$3 (\#2)}},",
        "  year = {2026},",
        "  month = jan,",
        "}",
    ]


def test_switches_of_a_request_are_written_as_they_are_read(asked, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Config:
        is_bent: bool = True
        is_long: bool = False

    module = type("Module", (), {"SCALES": dict.fromkeys(("smoke", "laptop", "full"), Config())})
    monkeypatch.setattr("gradatim.lab.paper.Paper.module", lambda self: module)
    assert main(["run", "random-walk", "--no-is-bent", "--is-long"]) == 0
    (first,) = asked.requests
    assert first.changed == {"is_bent": False, "is_long": True}
    assert main(shlex.split(first.command())[1:]) == 0
    assert asked.requests == [first]


def test_search_finds_by_words(capsys):
    assert main(["search", "how", "walkers", "spread", "--json", "--limit", "2"]) == 0
    hits = json.loads(capsys.readouterr().out)
    assert {hit["slug"] for hit in hits} == {"random-walk", "random-clock"}


def test_new_paper_writes_two_files(capsys, tmp_path):
    assert main(["new-paper", "brand-new", "--folder", str(tmp_path), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert sorted(Path(file).name for file in files) == ["brand_new.py", "brand_new.toml"]
    assert "brand_new" in refused(capsys, "new-paper", "brand-new", "--folder", str(tmp_path))


def test_doctor_finds_data_and_folders(capsys, tmp_path):
    main(["doctor", "--runs", str(tmp_path), "--json"])
    checks = {(check["group"], check["name"]): check for check in json.loads(capsys.readouterr().out)}
    assert checks["data", "digits"]["ok"]
    assert checks["folders", "runs"]["ok"]
    assert ("data", "fashion-mnist") in checks


# Runs


def test_run_json_form(outcome):
    assert set(outcome) == {"slug", "scale", "status", "record", "seconds", "verdicts"}
    assert (outcome["slug"], outcome["scale"], outcome["status"]) == ("random-walk", "smoke", "ok")
    assert list(outcome["verdicts"]) == ["C1", "C2", "C3"]
    record = gradatim.open_record(outcome["record"])
    assert record.seed == 1
    assert record.config["walkers"] == {"n_walkers": 100, "stride": 1.0}
    assert list(record.changed["ages"]) == [3.0, 4.0, 5.0]


def test_run_prints_verdicts_record_and_figures(outcome, asked, capsys):
    record = gradatim.open_record(outcome["record"])
    asked.append(RunOutcome("random-walk", "smoke", "ok", record=record.path, seconds=record.seconds, verdicts=record.verdicts))
    assert main(["run", "random-walk", "--scale", "smoke"]) == 0
    table = capsys.readouterr().out
    assert "what it says" in table
    assert "✓ holds" in table
    assert "0.5 ± 0.1" in table
    assert "for ever takes too long" in table
    assert f"random-walk: {record.path}" in table
    assert "figures/spread.png" in table


def test_compare_shows_what_differs(outcome, tmp_path, capsys):
    second = outcome["record"]
    first = shutil.copytree(second, tmp_path / "first")
    table = json.loads((first / "record.json").read_text())
    table["seed"], table["config"]["walkers"]["n_walkers"] = 0, 200
    (first / "record.json").write_text(json.dumps(table))
    assert main(["compare", str(first), second, "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["config"]["walkers.n_walkers"] == [200, 100]
    assert compared["run"]["seed"] == [0, 1]
    assert compared["measures"]["C1.exponent"]["difference"] == 0
    assert main(["compare", str(first), second]) == 0
    assert "walkers.n_walkers" in capsys.readouterr().out


def test_fields_replace_those_of_the_chosen_scale(asked):
    assert main(["run", "random-walk", "--scale", "full", "--walkers.stride=2", "--ages", "1", "--ending", "exit"]) == 0
    (request,) = asked.requests
    assert (request.slug, request.scale) == ("random-walk", "full")
    assert request.changed == {"walkers.stride": 2.0, "ages": [1.0], "ending": "exit"}


@pytest.mark.parametrize("option", ["--walkers.n_walkers", "--walkers.n-walkers"])
def test_underscores_and_hyphens_are_one(asked, option):
    assert main(["run", option, "1000", "random-walk"]) == 0
    assert asked.requests[0].changed == {"walkers.n_walkers": 1000}


def test_help_lists_the_fields_of_the_scale(capsys):
    assert main(["run", "random-walk", "--scale", "full", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Fields of random-walk at scale full" in shown
    assert "--walkers.n-walkers INT Walkers, all from the origin (between 3 and 1e+12) [default: 10000]" in shown
    assert "[default: 1.0 2.0]" in shown


def test_all_runs_every_implemented_paper_with_one_line_each(asked, capsys):
    assert main(["run", "--all", "--scale", "smoke", "--workers", "2"]) == 0
    ready = [paper.slug for paper in papers().values() if paper.implemented]
    assert [request.slug for request in asked.requests] == ready
    assert all(request.quiet and request.threads == 1 for request in asked.requests)
    assert asked.options["workers"] == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"[{i}/{len(ready)}] {slug}: ok" for i, slug in enumerate(ready, 1)]


def test_a_paper_named_twice_runs_once(asked):
    assert main(["run", "random-walk", "random-clock", "random-walk", "--resume", "--timeout", "9", "--seed", "4"]) == 0
    assert [(r.slug, r.resume, r.timeout, r.seed) for r in asked.requests] == [
        ("random-walk", True, 9.0, 4),
        ("random-clock", True, 9.0, 4),
    ]


def test_one_table_for_several_papers(asked, capsys):
    asked += [RunOutcome(slug, "smoke", "ok", verdicts={"C1": verdict("holds")}) for slug in ("random-walk", "random-clock")]
    assert main(["run", "random-walk", "random-clock", "--scale", "smoke"]) == 0
    out = capsys.readouterr().out
    assert out.count("what it says") == 1
    assert out.splitlines()[0].startswith("paper ")


def test_scorecard_is_updated_on_request(asked, tmp_path):
    asked.append(RunOutcome("random-walk", "laptop", "ok", record=tmp_path))
    assert main(["run", "random-walk", "--update-scorecard"]) == 0
    assert asked.updated == [tmp_path]
    asked.append(RunOutcome("random-walk", "laptop", "failed", "error", "ValueError: no", record=tmp_path / "failed"))
    assert main(["run", "random-walk", "--update-scorecard"]) == 3
    assert asked.updated == [tmp_path]


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([RunOutcome("random-walk", "smoke", "ok", verdicts={"C1": verdict("holds"), "C3": verdict("fails")})], 0),
        ([RunOutcome("random-walk", "smoke", "ok", verdicts={"C1": verdict("fails")})], 1),
        ([RunOutcome("random-walk", "smoke", "failed", "bad-input", "no")], 2),
        ([RunOutcome("random-walk", "smoke", "failed", "storage", "disk is full")], 2),
        ([RunOutcome("random-walk", "smoke", "failed", "error", "ValueError: no")], 3),
        ([RunOutcome("random-walk", "smoke", "failed", "interrupted", "stopped")], 130),
    ],
)
def test_exit_codes(asked, outcomes, code):
    asked.scorecard["random-walk"] = {"claims": {"C1": verdict("holds"), "C3": verdict("fails")}}
    asked += outcomes
    assert main(["run", "random-walk", "--scale", "smoke"]) == code


def test_regression_and_failure_are_named(asked, capsys):
    asked.scorecard["random-walk"] = {"claims": {"C1": verdict("holds")}}
    failed = RunOutcome("random-clock", "smoke", "failed", "error", "ValueError: no", traceback="Traceback: there")
    asked += [RunOutcome("random-walk", "smoke", "ok", verdicts={"C1": verdict("fails")}), failed]
    assert main(["run", "random-walk", "random-clock", "--scale", "smoke", "--quiet"]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["random-clock failed (error): ValueError: no", "random-walk C1 fails, and holds on the scorecard"]
    asked.append(failed)
    main(["run", "random-clock", "--debug"])
    assert "Traceback: there" in capsys.readouterr().err


def test_interruption(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gradatim.lab.run.run_papers", interrupt)
    assert main(["run", "random-walk"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_cluster_lends_its_executor(asked, monkeypatch):
    class Client(contextlib.nullcontext):
        def __init__(self, address):
            super().__init__(self)
            self.address = address

        def get_executor(self):
            return f"executor of {self.address}"

    monkeypatch.setitem(sys.modules, "distributed", type("distributed", (), {"Client": Client}))
    assert main(["run", "random-walk", "--cluster", "tcp://host:8786"]) == 0
    assert asked.options["executor"] == "executor of tcp://host:8786"


def test_cluster_without_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "pip install 'gradatim[cluster]'" in refused(capsys, "run", "random-walk", "--cluster", "tcp://host:8786")


# Bad input


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("run random-wolk", "did you mean 'random-walk'"),
        ("show random-wolk", "did you mean 'random-walk'"),
        ("cite random-wolk", "did you mean 'random-walk'"),
        ("run random-wolk --width 3", "there is no paper 'random-wolk'"),
        ("run random-walk --scale smok", "did you mean 'smoke'"),
        ("run random-walk --scale=tiny", "--scale must be smoke, laptop, full, got 'tiny'"),
        ("run random-walk --walkers.n_walker 5", "Did you mean --walkers.n-walkers?"),
        ("run random-walk --strde 5", "Unknown option: --strde"),
        ("run random-walk --walkers.n_walkers 2", "walkers.n_walkers must be between 3 and 1e+12, got 2"),
        ("run random-walk --walkers.stride nan", "walkers.stride must be finite, got nan"),
        ("run random-walk --walkers.stride inf", "walkers.stride must be finite, got inf"),
        ("run random-walk --walkers.stride fast", '--walkers.stride: unable to convert "fast" into float'),
        ("run random-walk --steps 20.5", "--steps: it must be a whole number, got '20.5'"),
        ("run random-walk --steps many", "--steps: it must be a whole number, got 'many'"),
        ("run random-walk --steps nan", "--steps: it must be a whole number, got 'nan'"),
        ("run random-walk --steps", "--steps requires an argument"),
        ("run random-walk --ending badly", "ending must be one of well, raise"),
        ("run random-walk random-clock --steps 30", "one paper at a time"),
        ("run random-walk --steps 30 --update-scorecard", "no field changed"),
        ("run random-walk --update-scorecard --scale smoke", "laptop scale"),
        ("run random-walk --seed -1", "seed must lie in"),
        ("run random-walk --seed 1.5", "--seed: it must be a whole number, got '1.5'"),
        ("run random-walk --seed x", "--seed: it must be a whole number, got 'x'"),
        ("run random-walk --timeout 0", "timeout must be a positive number"),
        ("run random-walk --workers 0", "--workers must be at least 1, got 0"),
        ("run random-walk --workers 2 --cluster tcp://host:1", "exclude each other"),
        ("run", "name the papers to run, or --all"),
        ("run random-walk --all", "name the papers to run, or --all"),
        ("compare runs/none runs/none", "there is no record at runs/none"),
        ("compare runs/none", "requires an argument"),
        ("search", "at least one word"),
        ("lst", 'Did you mean "list"?'),
        ("list --jsn", "Did you mean --json?"),
        ("new-paper Bad_Slug", "Bad_Slug"),
    ],
)
def test_bad_input_is_one_line(capsys, words, says):
    assert says in refused(capsys, *words.split())


def test_paper_without_an_experiment(capsys, monkeypatch):
    bare = dataclasses.replace(papers()["random-walk"], module_name=None)
    monkeypatch.setattr("gradatim.lab.registry.papers", lambda: {bare.slug: bare})
    monkeypatch.setattr("gradatim.lab.registry.find", {bare.slug: bare}.__getitem__)
    assert "random-walk is not implemented yet" in refused(capsys, "run", "random-walk")
    assert main(["list"]) == 0
    assert "not implemented yet" in capsys.readouterr().out


def test_folder_of_runs_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert main(["run", "random-walk", "--scale", "smoke", "--runs", str(tmp_path / "file")]) == 2
    err = capsys.readouterr().err
    assert "cannot write to" in err
    assert "--runs" in err
    assert err.count("\n") == 1


def test_field_that_clashes_with_an_option(capsys, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Config:
        seed: int = 0
        "Clashes."
        update_scorecard: bool = False
        width: int = 3

    module = type("Module", (), {"SCALES": dict.fromkeys(("smoke", "laptop", "full"), Config())})
    monkeypatch.setattr("gradatim.lab.paper.Paper.module", lambda self: module)
    assert "seed, update_scorecard must be renamed" in refused(capsys, "run", "random-walk", "--width", "4")


def test_traceback_only_with_debug(capsys):
    assert main(["show", "random-wolk", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


# Start


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == gradatim.__version__


def test_reserved_names_are_the_commands_own():
    assert {"seed", "scale", "mesh", "runs", "update-scorecard", "debug", "help"} <= running._reserved()
    assert not any(name.startswith("-") for name in running._reserved())


def in_fresh_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_jax_is_not_imported_to_look_things_up():
    slug = next(iter(papers()))
    in_fresh_process(
        "import sys, gradatim\n"
        "assert 'numpy' not in sys.modules and 'gradatim.lab' not in sys.modules\n"
        "from gradatim.cli import main\n"
        "for words in ['--help', 'list', 'list --json', 'show diffgrad', 'cite diffgrad', 'run --help', 'search gradient']:\n"
        f"    words = words.replace('diffgrad', {slug!r})\n"
        "    assert main(words.split()) == 0\n"
        "    assert 'jax' not in sys.modules, words\n"
    )


def test_help_imports_no_laboratory():
    in_fresh_process("import sys; from gradatim.cli import main; main(['--help']); assert 'gradatim.lab' not in sys.modules")


def test_module_runs():
    done = subprocess.run([sys.executable, "-m", "gradatim", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, gradatim.__version__)
