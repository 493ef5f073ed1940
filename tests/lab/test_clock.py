from types import SimpleNamespace

import pytest

from gradatim.lab import clock


@pytest.fixture
def now(monkeypatch):
    """The time, which stands still until it is set."""
    moment = [0.0]
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: moment[0]))
    return moment


def test_a_span_inside_another_counts_once_and_one_that_began_before_in_part(now):
    compilations = clock._Compilations()
    for end, seconds, event in ((3, 1, "trace"), (5, 4, "lower"), (7, 1, "backend_compile")):
        now[0] = end
        compilations(f"/jax/core/compile/{event}", seconds)
    now[0] = 9
    compilations("/jax/checkpoint/write", 8.0)
    # From 2 to 3 within 1 to 5, and from 6 to 7.
    assert [compilations.since(start) for start in (0, 1, 4, 6.5, 8)] == [5, 5, 2, 0.5, 0]


def test_what_is_not_compiling_is_running_even_where_it_fails(now, monkeypatch):
    monkeypatch.setattr(clock, "_compilations", SimpleNamespace(since=lambda start: 2.0))
    seconds = {"compile": 1.0, "run": 1.0}

    def fail():
        now[0] += 5
        raise KeyError

    with pytest.raises(KeyError), clock.counted(seconds):
        fail()
    assert seconds == {"compile": 3, "run": 4}
    with clock.counted(seconds):
        now[0] += 1.5  # clocks that disagree: never more than the wall's
    assert seconds == {"compile": 4.5, "run": 4}
