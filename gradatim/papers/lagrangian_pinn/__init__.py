"""Networks for convection in fixed and in moving coordinates (Mojgani, Balajewicz and Hassanzadeh, arXiv:2205.02902).

Both methods have the same points, widths, steps, rate and seeds; the networks' initial weights and the rate are those of the authors' code,
whose norms are squared here, and whose AMSGrad is plain Adam but at full scale. The diffusion on the characteristics is that of the true
equation; that by the label, which the code has, is measured beside it for Burgers. The mean of Burgers' state stands beside the networks
of both; the code leaves it to them.
"""

from __future__ import annotations

import jax
import xarray as xr

from gradatim.lab import Findings, Session

from .config import Config as Config
from .figures import draw as draw
from .judging import judge
from .landscapes import SPEEDS, measure_landscapes
from .training import LOOKS, Method, Trained, train, try_remedies
from .truth import solve
from .widths import run_widths

PRECISION = "single"
SCALES = {
    "smoke": Config(
        places=8, times=8, width=8, depth_state=1, depth_path=1, steps=20, other_rates=(0.03,), speeds=(1.0, 10.0, 30.0),
        fixed_burgers=(0.0, 10.0), moving_burgers=(0.0, 10.0), by_label=False, seeds=3, windows=4, cells=256, lanczos_steps=4, grid=3,
    ),
    "laptop": Config(),
    "full": Config(
        places=256, times=100, width=50, depth_state=5, steps=1_000_000, amsgrad=True, speeds=(1.0, 10.0, 30.0, 50.0, 70.0),
        fixed_burgers=(0.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 70.0), moving_burgers=(0.0, 10.0, 30.0, 70.0), cells=1024, lanczos_steps=64,
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Bytes: of one network its activations in four rows, kept for the way back; of all, copies of the parameters and fields."""
    n_models = config.seeds * (
        len(config.speeds) + max(len(config.fixed_burgers) + 2 * len(config.other_rates), len(config.moving_burgers)) + 1
    )
    layers = config.depth_state + config.depth_path
    activations = 4 * 4 * config.places * config.times * config.width * layers
    return int(4 * (4 * activations + n_models * (6 * layers * config.width**2 + 20_000)))


def run(config: Config, session: Session) -> Findings:
    """Widths, then both methods, remedies, the label's diffusion, and the loss around what was learnt."""
    _check(config)
    key_train, key_curvature = jax.random.split(session.key)
    truth = solve(config, session)
    widths = run_widths(config, truth, session)
    trained: dict[Method, Trained] = {}
    # One key for all: methods are paired, seed by seed.
    methods: tuple[Method, ...] = ("fixed", "moving", "label") if config.by_label else ("fixed", "moving")
    for method in methods:
        trained[method] = train(config, method, truth, session, key_train)
    trees: dict[str, xr.Dataset] = {name: found.data for name, found in trained.items()}
    trees["remedies"] = try_remedies(config, truth, session, key_train)
    trees["landscapes"] = measure_landscapes(config, trained, session, key_curvature)
    return Findings.joined([widths, judge(config, trees, session)])


def _check(config: Config) -> None:
    missing = {*SPEEDS, 10.0} - {*config.speeds}
    if missing:
        raise ValueError(f"speeds must include 1, 10 and 30, on which claims are judged, got {config.speeds}")
    if len(config.fixed_burgers) < 2 or list(config.fixed_burgers) != sorted(set(config.fixed_burgers)):
        raise ValueError(f"fixed_burgers must ascend, at least two means, got {config.fixed_burgers}")
    if config.steps % LOOKS or config.steps % config.windows:
        raise ValueError(f"steps must be a multiple of {LOOKS} and of the {config.windows} windows, got {config.steps}")
