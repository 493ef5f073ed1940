"""The one loop that every training and every simulation goes through."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gradatim.lab.ledger import LoopFile
from gradatim.lab.progress import progress

OnNonfinite = Literal["raise", "stop", "keep"]
Step = Callable[[Any, Any, Any], Any]
Choose = Callable[[int], int]
Watch = Callable[[Any, Any], dict[str, Any]]
Row = dict[str, np.ndarray]
ENOUGH_SECONDS = 0.25
"A compiled call that takes this long is not made longer: the bar still moves and Ctrl-C is heard."


@dataclass(frozen=True)
class Loop:
    """The end of a loop.

    **Arguments:** `state`: after the last step; `history`: what was watched, stacked along the first axis, and `"step"`, the
    steps done at each row; `diverged_at`: the steps after which the state (or what was watched) was first not finite, or None.
    """

    state: Any
    history: dict[str, np.ndarray]
    diverged_at: int | None = None


class NonFiniteError(FloatingPointError):
    """A state, or a watched quantity, stopped being finite; `label`, `step` and `quantity` say where."""

    def __init__(self, label: str, step: int, quantity: str) -> None:
        super().__init__(
            f"loop {label!r}: {quantity} is not finite after step {step}: shorten the step, or let the loop stop there "
            "with on_nonfinite='stop'"
        )
        self.label, self.step, self.quantity = label, step, quantity


def holds_convolution(step: Step, state: Any, args: Any) -> bool:
    """Whether one step holds a convolution, which XLA's CPU backend runs about ten times slower inside any control flow."""
    closed, *_ = eqx.filter_make_jaxpr(step)(state, jnp.zeros((), jnp.int32), args)
    return any(equation.primitive.name == "conv_general_dilated" for equation in _equations(closed.jaxpr, set()))


def dispatched_on_this_device(step: Step, state: Any, args: Any) -> bool:
    """Whether steps go to the device one by one: on a CPU, those that hold a convolution."""
    return jax.default_backend() == "cpu" and holds_convolution(step, state, args)


def run_loop(
    variants: tuple[Step, ...],
    choose: Choose | None,
    state: Any,
    args: Any,
    watch: Watch | None,
    file: LoopFile,
    *,
    label: str,
    steps: int,
    every: int,
    chunk: int | None,
    on_nonfinite: OnNonfinite,
    quiet: bool,
) -> Loop:
    """The loop behind `Session.loop`, which documents it; `file` keeps its checkpoints."""
    # Copied: the caller keeps its arrays, and no two leaves share a buffer that is about to be donated.
    state = _copy(jax.tree.map(_on_device, state))
    resumed = file.load(state)
    rows: list[Row] = []
    done, diverged_at = 0, None
    if resumed is not None:
        header, state, history = resumed
        done, diverged_at = header["step"], header["diverged_at"]
        if header["finished"]:
            return Loop(state, history, diverged_at)
        rows = [{name: np.asarray(column[i]) for name, column in history.items()} for i in range(len(history["step"]))]
    # What is traced to see whether it holds a convolution is not traced again in the loop.
    variants = tuple(eqx.Partial(_traced_once, step) for step in variants)
    one_by_one = chunk == 1 or choose is not None or (chunk is None and dispatched_on_this_device(variants[0], state, args))
    walk = _Walk(variants, choose, args, watch, label, one_by_one, chunk)
    mark: _Mark | None = None
    try:
        with progress(label, total=steps, done=done, quiet=quiet) as report:
            while True:
                watched, faults = walk.look(state)
                if faults and diverged_at is None:
                    diverged_at, quantity, last = walk.first_fault(mark, done, state, faults)
                    if on_nonfinite == "raise":
                        raise NonFiniteError(label, diverged_at, quantity)
                    if on_nonfinite == "stop":
                        done, state = last
                        watched, _ = walk.look(state)
                if not rows or done > rows[-1]["step"]:
                    file.log.append(label, done, watched)
                    rows.append({"step": np.asarray(done), **watched})
                if done == steps or (diverged_at is not None and on_nonfinite == "stop"):
                    mark = _Mark(done, state, len(rows), file.log.n_bytes)
                    break
                copy = _copy(state) if mark is None else _copy_from(state, mark.state)
                mark = _Mark(done, copy, len(rows), file.log.n_bytes)
                if file.due:
                    _save(file, mark, rows, diverged_at, finished=False)
                target = min((done // every + 1) * every, steps)
                for now, moved in walk.advance(state, done, target):
                    state = moved
                    report(now)
                done = target
    except KeyboardInterrupt:
        if mark is not None and mark.is_whole:
            _save(file, mark, rows, diverged_at, finished=False)
        raise
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if mark is not None and one_by_one and "EquinoxRuntimeError" in str(error):
            walk.explain(mark, min((mark.step // every + 1) * every, steps))
        raise
    _save(file, mark, rows, diverged_at, finished=True)
    return Loop(mark.state, _stack(rows), diverged_at)


@dataclass(frozen=True)
class _Mark:
    """The last point at which everything was consistent: a state nobody donates, the rows and the log up to it."""

    step: int
    state: Any
    n_rows: int
    log_bytes: int

    @property
    def is_whole(self) -> bool:
        """Whether the state is still there: for a moment, its buffers belong to the next mark."""
        return not any(leaf.is_deleted() for leaf in jax.tree.leaves(eqx.filter(self.state, eqx.is_array)))


@dataclass(frozen=True)
class _Walk:
    """Moves a state along one step function, by a compiled loop or step by step, or along several in turn, and looks at it."""

    variants: tuple[Step, ...]
    choose: Choose | None
    args: Any
    watch: Watch | None
    label: str
    one_by_one: bool
    chunk: int | None

    def advance(self, state: Any, start: int, stop: int) -> Iterator[tuple[int, Any]]:
        """Yields the steps done and the state after each compiled call; `state` is donated."""
        n = 1 if self.chunk is None else self.chunk
        while start < stop:
            n = min(n, stop - start)
            began = time.perf_counter()
            state = self._dispatch(state, start, n) if self.one_by_one else self._compiled(state, start, n)
            start += n
            yield start, state
            if self.chunk is None and time.perf_counter() - began < ENOUGH_SECONDS:
                n *= 2

    def _compiled(self, state: Any, start: int, n: int) -> Any:
        return _advance((self.variants[0], self.args, _int32(n)), (_int32(start), state))

    def _at(self, i: int) -> int:
        """The number of the variant that makes step `i`."""
        return 0 if self.choose is None else self.choose(i)

    def _dispatch(self, state: Any, start: int, n: int) -> Any:
        parts = [_split((step, self.args)) for step in self.variants]
        moving, moving_static = _split(state)
        i = _int32(start)
        for now in range(start, start + n):
            fixed, fixed_static = parts[self._at(now)]
            i, moving = _one_step(fixed_static, moving_static, fixed, i, moving)
        return moving_static.join(moving)

    def look(self, state: Any) -> tuple[Row, list[str]]:
        """What is watched, and the names of what is not finite."""
        watched, finite = jax.device_get(_look(self.watch, self.args, state))
        faults = [f"state{name}" for name, is_finite in zip(_inexact_paths(state), finite, strict=True) if not is_finite]
        return watched, faults + [f"watched {name!r}" for name, value in watched.items() if not _is_finite(value)]

    def first_fault(self, mark: _Mark | None, done: int, state: Any, faults: list[str]) -> tuple[int, str, tuple[int, Any]]:
        """The exact step after which a quantity is not finite, its name, and the last finite state with its step.

        Found by going again from the last mark, one step at a time. Watched quantities are only known where they are watched.
        """
        if mark is None or not faults[0].startswith("state"):
            return done, faults[0], (done, state)
        blind = _Walk(self.variants, self.choose, self.args, None, self.label, self.one_by_one, 1)
        last = (mark.step, mark.state)
        for now, moving in blind.advance(_copy(mark.state), mark.step, done):
            _, found = blind.look(moving)
            if found:
                return now, found[0], last
            last = (now, _copy(moving))
        return done, faults[0], last

    def explain(self, mark: _Mark, stop: int) -> None:
        """Goes again from the mark through `eqx.filter_jit`, which words a run-time error for people."""
        i, state = _int32(mark.step), mark.state
        for now in range(mark.step, stop):
            i, state = _explained_step((self.variants[self._at(now)], self.args), (i, state))


# `Any`: the overloads of `filter_jit` leave out what it passes on to `jax.jit`.
@cast("Any", eqx.filter_jit)(inline=True)
def _traced_once(step: Step, state: Any, i: Any, args: Any) -> Any:
    return step(state, i, args)


@eqx.filter_jit(donate="all-except-first")
def _advance(fixed: Any, moving: Any) -> Any:
    (step, args, n), (start, state) = fixed, moving
    dynamic, static = eqx.partition(state, eqx.is_array)

    def body(i: Any, dynamic: Any) -> Any:
        state = eqx.combine(dynamic, static)
        return eqx.filter(_checked(state, step(state, i, args)), eqx.is_array)

    # A traced number of steps: a short last stretch runs the same program.
    return eqx.combine(jax.lax.fori_loop(start, start + n, body, dynamic), static)


# Plain jit: eqx.filter_jit waits for each call to end, and these must queue up behind each other.
@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(3, 4))
def _one_step(fixed_static: _Static, moving_static: _Static, fixed: Any, i: Any, moving: Any) -> Any:
    step, args = fixed_static.join(fixed)
    state = moving_static.join(moving)
    return i + 1, jax.tree.leaves(eqx.filter(_checked(state, step(state, i, args)), eqx.is_array))


@eqx.filter_jit
def _explained_step(fixed: Any, moving: Any) -> Any:
    (step, args), (i, state) = fixed, moving
    return i + 1, _checked(state, step(state, i, args))


@eqx.filter_jit
def _look(watch: Watch | None, args: Any, state: Any) -> Any:
    watched = {} if watch is None else watch(state, args)
    if not isinstance(watched, dict) or "step" in watched:
        raise ValueError(f"watch must return a dict of arrays without the name 'step', got {watched!r}")
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_inexact_array))]
    return jax.tree.map(jnp.asarray, watched), finite


@eqx.filter_jit
def _copy(state: Any) -> Any:
    def copy(leaf: Any) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        # A strong dtype, as the step returns it: a weak one would compile the first call apart from the rest.
        return jnp.copy(leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(leaf, leaf.dtype))

    return jax.tree.map(copy, state)


# Into buffers that are there already: the pages of new ones take longer to come by than the copy itself.
@eqx.filter_jit(donate="all-except-first")
def _copy_from(state: Any, old: Any) -> Any:
    def copy(leaf: Any, old: Any) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        if leaf.ndim == 0 or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.copy(leaf)
        return jax.lax.dynamic_update_slice(old, leaf, (0,) * leaf.ndim)

    return jax.tree.map(copy, state, old)


class _Static:
    """What a pytree holds beside its arrays, hashed once."""

    def __init__(self, treedef: Any, others: tuple[Any, ...]) -> None:
        self.treedef, self.others = treedef, others
        # The types too: 1, 1.0 and True are equal, and trace differently.
        self._identity = (treedef, others, tuple(map(type, others)))
        self._hash = hash(self._identity)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Static) and self._identity == other._identity)

    def join(self, arrays: list[Any]) -> Any:
        rest = iter(arrays)
        return self.treedef.unflatten([next(rest) if other is _ARRAY else other for other in self.others])


_ARRAY = object()


def _split(tree: Any) -> tuple[list[Any], _Static]:
    leaves, treedef = jax.tree.flatten(tree)
    arrays = [leaf for leaf in leaves if eqx.is_array(leaf)]
    return arrays, _Static(treedef, tuple(_ARRAY if eqx.is_array(leaf) else leaf for leaf in leaves))


def _checked(old: Any, new: Any) -> Any:
    """The state that a step returned, once it is known to have the structure, shapes and dtypes of the one that it was given."""
    structure, returned = jax.tree.structure(old), jax.tree.structure(new)
    if structure != returned:
        raise ValueError(f"step must return a state of the structure that it takes, got {returned} for {structure}")
    return jax.tree_util.tree_map_with_path(_checked_leaf, old, new)


def _checked_leaf(path: Any, old: Any, new: Any) -> Any:
    name = f"state{jax.tree_util.keystr(path)}"
    if not eqx.is_array(old):
        if new is not old and (type(new) is not type(old) or new != old):
            raise TypeError(f"{name} is a {type(old).__name__}, so it stays as it is, but step changes it: make it an array")
        return old
    if not isinstance(new, jax.Array):
        new = jnp.asarray(new)
    if (old.shape, old.dtype) != (new.shape, new.dtype):
        raise ValueError(f"step must keep shape and dtype of {name}, got {new.dtype}{new.shape} for {old.dtype}{old.shape}")
    # A weakly typed output would make the next call compile again.
    return new if jnp.issubdtype(new.dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(new, new.dtype)


def _equations(jaxpr: Any, seen: set[int]) -> Iterator[Any]:
    """Of a program and all within it, each once however often it is called; they stand among the parameters, alone or in a tuple."""
    seen.add(id(jaxpr))
    for equation in jaxpr.eqns:
        yield equation
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, tuple | list) else (parameter,):
                program = getattr(inner, "jaxpr", inner)
                if hasattr(program, "eqns") and id(program) not in seen:
                    yield from _equations(program, seen)


def _on_device(leaf: Any) -> Any:
    return jax.device_put(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf


def _inexact_paths(state: Any) -> list[str]:
    leaves = jax.tree_util.tree_flatten_with_path(eqx.filter(state, eqx.is_inexact_array))[0]
    return [jax.tree_util.keystr(path) for path, _ in leaves]


def _is_finite(value: Any) -> bool:
    return not jnp.issubdtype(np.asarray(value).dtype, jnp.inexact) or bool(np.isfinite(value).all())


def _int32(number: int) -> jax.Array:
    return jnp.asarray(number, jnp.int32)


def _stack(rows: list[Row]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _save(file: LoopFile, mark: _Mark, rows: list[Row], diverged_at: int | None, *, finished: bool) -> None:
    if mark.n_rows:
        history = _stack(rows[: mark.n_rows])
        file.save(mark.state, history, step=mark.step, log_bytes=mark.log_bytes, diverged_at=diverged_at, finished=finished)
