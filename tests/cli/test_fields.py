import inspect
from dataclasses import dataclass
from typing import Annotated, Literal

import cyclopts
import pytest

from gradatim.cli.fields import leaves, options
from gradatim.cli.parsing import EVERY
from gradatim.lab.config import Between, OneOf


@dataclass(frozen=True)
class Optimizer:
    learning_rate: Annotated[float, Between(0, 1)] = 0.1
    "How far a step goes."
    b1: float = 0.9


@dataclass(frozen=True)
class Config:
    """Everything."""

    width: Annotated[int, Between(1, 4096)] = 256
    """Units of each
    hidden layer."""
    biased: bool = True
    "Whether layers have a bias."
    shape: tuple[int, int] = (8, 8)
    rates: Annotated[tuple[float, ...], Between(0)] = (0.1, 0.3)
    "Rates tried."
    loss: Annotated[str, OneOf("mse", "mae")] = "mse"
    mode: Literal["fast", "slow"] = "fast"
    optimizer: Optimizer = Optimizer()


def parse(*words):
    """What the command line makes of the words: the fields that were given, by argument."""

    def command(**arguments):
        return arguments

    parameters = options(list(leaves(Config())), title="Fields", reserved=())
    command.__signature__ = inspect.Signature(parameters)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = cyclopts.App(default_parameter=EVERY, result_action="return_value")
    app.default(command)
    call, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    return call(*bound.args, **bound.kwargs)


def test_leaves_are_found_at_every_depth_with_their_words_and_ranges():
    found = {field.path: field for field in leaves(Config(optimizer=Optimizer(b1=0.5)))}
    assert list(found) == ["width", "biased", "shape", "rates", "loss", "mode", "optimizer.learning_rate", "optimizer.b1"]
    assert found["width"].help == "Units of each hidden layer (between 1 and 4096)"
    assert found["biased"].help == "Whether layers have a bias"
    assert found["loss"].help == "(one of mse, mae)"
    assert found["optimizer.b1"].value == 0.5
    assert found["optimizer.learning_rate"].option == "optimizer.learning-rate"


@pytest.mark.parametrize(
    ("words", "argument", "value"),
    [
        ("--width 3", "width", 3),
        ("--no-biased", "biased", False),
        ("--biased", "biased", True),
        ("--shape 2 3", "shape", (2, 3)),
        ("--rates 1 2.5 3", "rates", (1.0, 2.5, 3.0)),
        ("--loss=mae", "loss", "mae"),
        ("--mode slow", "mode", "slow"),
        ("--optimizer.learning-rate 1e-3", "optimizer__learning_rate", 1e-3),
    ],
)
def test_only_what_is_given_is_parsed(words, argument, value):
    given = parse(*words.split())
    assert given == {argument: value}
    assert type(given[argument]) is type(value)


@pytest.mark.parametrize("words", ["--width 2.5", "--width 1e3", "--shape 2", "--shape 2 3.5", "--rates x", "--mode faster", "--b1 0.5"])
def test_what_does_not_fit_is_refused(words):
    with pytest.raises(cyclopts.CycloptsError):
        parse(*words.split())


def test_names_of_the_command_are_reserved():
    with pytest.raises(ValueError, match=r"toy: biased, width must be renamed"):
        options(list(leaves(Config())), title="toy", reserved={"width", "biased", "b1"})


def test_fields_without_source_have_no_words():
    scope = {}
    exec("from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Made:\n    width: int = 3\n", scope)
    assert [field.help for field in leaves(scope["Made"]())] == [""]
