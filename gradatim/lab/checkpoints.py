"""What a run needs to go on after a kill: array leaves and nested results on disk, never half written, without pickles."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

FORMAT = 1


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Writes a file that is whole or not there: to a neighbouring name, flushed to the disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def describe(state: Any) -> list[dict[str, Any]]:
    """Path, shape and dtype of each array leaf: what a checkpoint must agree with."""
    leaves = jax.tree_util.tree_flatten_with_path(eqx.filter(state, eqx.is_array))[0]
    return [{"path": jax.tree_util.keystr(path), "shape": list(leaf.shape), "dtype": str(leaf.dtype)} for path, leaf in leaves]


def save_state(path: Path, header: Mapping[str, Any], state: Any, history: Mapping[str, np.ndarray]) -> None:
    """Writes a header of JSON values, the array leaves of `state` and the arrays of `history`."""
    leaves = [_to_host(leaf) for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_array))]
    head = {
        **header,
        "format": FORMAT,
        "leaves": describe(state),
        "stored": [_layout(leaf) for leaf in leaves],
        "history": {name: _layout(rows) for name, rows in history.items()},
    }

    def write(file: BinaryIO) -> None:
        file.write(json.dumps(head).encode() + b"\n")
        eqx.tree_serialise_leaves(file, [_to_bytes(array) for array in (*leaves, *history.values())])

    write_atomically(path, write)


def load_state(path: Path, state: Any, expected: Mapping[str, Any]) -> tuple[dict[str, Any], Any, dict[str, np.ndarray]]:
    """Reads what `save_state` wrote into the structure of `state`.

    **Returns:** the header, the state and the history.

    **Raises:** `ValueError` if the file's header differs from `expected`, or its leaves from those of `state`.
    """
    with path.open("rb") as file:
        header = json.loads(file.readline())
        advice = "start a new run, or resume with the configuration and the code that wrote it"
        for name, value in {"format": FORMAT, **expected}.items():
            if header[name] != value:
                raise ValueError(f"checkpoint {path} was written with {name} {header[name]!r}, this run has {value!r}: {advice}")
        ours, theirs = describe(state), header["leaves"]
        if ours != theirs:
            kinds = {leaf["path"]: leaf for leaf in theirs}
            differing = next((leaf for leaf in ours if leaf != kinds.get(leaf["path"])), None)
            detail = (
                f"{len(theirs)} leaves, the state has {len(ours)}"
                if differing is None
                else f"{kinds.get(differing['path'], 'no such leaf')} where the state has {differing}"
            )
            raise ValueError(f"checkpoint {path} does not match the state: it holds {detail}; {advice}")
        layouts = [*header["stored"], *header["history"].values()]
        raw = eqx.tree_deserialise_leaves(file, [np.empty(_n_bytes(layout), np.uint8) for layout in layouts])
    arrays = [_from_bytes(data, layout) for data, layout in zip(raw, layouts, strict=True)]
    dynamic, static = eqx.partition(state, eqx.is_array)
    leaves, treedef = jax.tree.flatten(dynamic)
    restored = [_like(leaf, array) for leaf, array in zip(leaves, arrays, strict=False)]
    history = dict(zip(header["history"], arrays[len(leaves) :], strict=True))
    return header, eqx.combine(treedef.unflatten(restored), static), history


def save_result(path: Path, result: Any) -> None:
    """Writes a nested dict, list or tuple of arrays, numbers, strings and None.

    **Raises:** `TypeError`, naming it, for any other type.
    """
    structure, arrays = encode(result)
    text = np.frombuffer(json.dumps(structure).encode(), np.uint8)
    named: dict[str, Any] = {"structure": text, **{f"array{i}": array for i, array in enumerate(arrays)}}
    write_atomically(path, lambda file: np.savez(file, **named))


def load_result(path: Path) -> Any:
    """Reads what `save_result` wrote: the same containers, numpy arrays as numpy's, JAX's as JAX's."""
    with np.load(path, allow_pickle=False) as file:
        arrays = [file[f"array{i}"] for i in range(len(file.files) - 1)]
        return _decode(json.loads(file["structure"].tobytes()), arrays)


def encode(result: Any) -> tuple[Any, list[np.ndarray]]:
    """A result as a JSON structure and the raw bytes of its arrays, in order."""
    arrays: list[np.ndarray] = []

    def visit(value: Any, where: str) -> Any:
        # Exact types: a subclass (a named tuple, an enumeration) would come back as its parent.
        if type(value) in (bool, int, float, str, type(None)):
            return {"value": value}
        if type(value) in (list, tuple):
            return {type(value).__name__: [visit(entry, f"{where}[{i}]") for i, entry in enumerate(value)]}
        if type(value) is dict:
            for key in value:
                if type(key) is not str:
                    raise TypeError(f"{where} must have strings as keys, got {key!r} of type {type(key).__name__}")
            return {"dict": {key: visit(entry, f"{where}[{key!r}]") for key, entry in value.items()}}
        if isinstance(value, np.ndarray | np.generic | jax.Array) and value.dtype != object:
            kind = "numpy" if isinstance(value, np.ndarray) else "scalar" if isinstance(value, np.generic) else "jax"
            key_type = str(jax.random.key_impl(value)) if isinstance(value, jax.Array) and _is_key(value) else None
            host = _to_host(value)
            arrays.append(_to_bytes(host))
            return {"array": len(arrays) - 1, "kind": kind, "keys": key_type, **_layout(host)}
        raise TypeError(f"{where} must be a dict, list, tuple, array, number, string or None, got {type(value).__qualname__}")

    return visit(result, "result"), arrays


def _decode(node: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> Any:
    if "array" in node:
        array = _from_bytes(arrays[node["array"]], node)
        if node["keys"] is not None:
            return jax.random.wrap_key_data(jnp.asarray(array), impl=node["keys"])
        return jnp.asarray(array) if node["kind"] == "jax" else array[()] if node["kind"] == "scalar" else array
    ((kind, what),) = node.items()
    match kind:
        case "list":
            return [_decode(entry, arrays) for entry in what]
        case "tuple":
            return tuple(_decode(entry, arrays) for entry in what)
        case "dict":
            return {key: _decode(entry, arrays) for key, entry in what.items()}
        case _:
            return what


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _like(leaf: jax.Array, array: np.ndarray) -> jax.Array:
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    return jax.device_put(array, leaf.sharding)


def _layout(array: np.ndarray) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": str(array.dtype)}


def _n_bytes(layout: Mapping[str, Any]) -> int:
    return int(np.prod(layout["shape"], dtype=np.int64)) * np.dtype(layout["dtype"]).itemsize


# Raw bytes: numpy's own format forgets the names of dtypes such as bfloat16.
def _to_bytes(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)


def _from_bytes(data: np.ndarray, layout: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(data.tobytes(), np.dtype(layout["dtype"])).reshape(layout["shape"]).copy()
