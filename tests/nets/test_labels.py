from functools import partial
from typing import ClassVar

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.nets import (
    DecoderLM,
    MatrixAxes,
    ResNet,
    check_labels,
    count_layers,
    label_by_growth,
    label_parameters,
    layer_indices,
    matrix_axes,
    muon_roles,
    norm_groups,
)

VOCABULARY = 7


class Experts(eqx.Module):
    parameter_kinds: ClassVar = {"up": MatrixAxes((-1,), (-2,)), "router": "router"}
    up: jax.Array
    router: jax.Array


class Block(eqx.Module):
    norm: eqx.nn.RMSNorm
    attention: eqx.nn.MultiheadAttention
    experts: Experts
    down: eqx.nn.Linear  # one for each expert, stacked

    def __init__(self, width, key):
        keys = jax.random.split(key, 4)
        self.norm = eqx.nn.RMSNorm(width)
        self.attention = eqx.nn.MultiheadAttention(2, width, use_output_bias=True, key=keys[0])
        self.experts = Experts(jnp.zeros((3, 2 * width, width)), jnp.zeros((3, width)))
        self.down = eqx.filter_vmap(lambda k: eqx.nn.Linear(2 * width, width, key=k))(jax.random.split(keys[1], 3))


class LanguageModel(eqx.Module):
    embedding: eqx.nn.Embedding
    blocks: list[Block]
    norm: eqx.nn.LayerNorm
    readout: eqx.nn.Linear
    temperature: jax.Array
    activation: object
    steps: jax.Array

    def __init__(self, width, key=None):
        keys = jax.random.split(jax.random.key(0) if key is None else key, 4)
        self.embedding = eqx.nn.Embedding(VOCABULARY, width, key=keys[0])
        self.blocks = [Block(width, keys[1]), Block(width, keys[2])]
        self.norm = eqx.nn.LayerNorm(width)
        self.readout = eqx.nn.Linear(width, VOCABULARY, key=keys[3])
        self.temperature, self.activation = jnp.ones(()), jax.nn.silu
        self.steps = jnp.zeros((), jnp.int32)

    def __call__(self, token):
        return self.readout(self.norm(self.embedding(token)))


def filled(make, *args, **options):
    """A module with arrays from NumPy: no draw of JAX's for each shape, where the numbers do not matter."""
    rng = np.random.default_rng(0)
    shapes = eqx.filter_eval_shape(make, *args, **options)
    is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
    return jax.tree.map(lambda leaf: jax.device_put(rng.normal(size=leaf.shape).astype(leaf.dtype)) if is_shape(leaf) else leaf, shapes)


@pytest.fixture(scope="module")
def model():
    return filled(LanguageModel, 4)


def by_path(labels):
    return {jax.tree_util.keystr(path): label for path, label in jax.tree_util.tree_leaves_with_path(labels)}


def test_structure_is_that_of_the_filtered_model(model):
    params = eqx.filter(model, eqx.is_inexact_array)
    for labels in (label_parameters(model), label_by_growth(model, filled(LanguageModel, 8)), norm_groups(model), muon_roles(model)):
        assert jax.tree.structure(labels) == jax.tree.structure(params)
        assert labels.steps is None and labels.activation is None
        optimizer = optax.multi_transform(dict.fromkeys(set(jax.tree.leaves(labels)), optax.sgd(1.0)), lambda _, labels=labels: labels)
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        np.testing.assert_array_equal(updates.readout.weight, -np.asarray(params.readout.weight))


def test_roles_by_module(model):
    labels = label_parameters(model)
    block = labels.blocks[1]
    assert labels.embedding.weight == "vector" and labels.temperature == "vector"
    assert (labels.norm.weight, labels.norm.bias, block.norm.weight) == ("vector",) * 3
    assert (labels.readout.weight, labels.readout.bias) == ("output", "vector")
    attention = block.attention
    assert {attention.query_proj.weight, attention.output_proj.weight} == {"matrix"} and attention.output_proj.bias == "vector"
    assert (block.experts.up, block.experts.router) == ("matrix", "vector")
    assert (block.down.weight, block.down.bias) == ("matrix", "vector")


def test_growth_agrees_with_modules_where_all_layers_are_hidden(model):
    assert by_path(label_by_growth(model, filled(LanguageModel, 8))) == by_path(label_parameters(model))


def test_growth_needs_shapes_only(model):
    large = eqx.filter_eval_shape(LanguageModel, 64)
    assert by_path(label_by_growth(model, large)) == by_path(label_parameters(model))
    assert by_path(label_parameters(large)) == by_path(label_parameters(model))


def test_growth_sees_that_a_first_layer_has_fixed_inputs():
    small, large = (filled(eqx.nn.MLP, 5, 3, width, 2, key=jax.random.key(0)) for width in (8, 16))
    by_growth, by_module = label_by_growth(small, large), label_parameters(small)
    assert [layer.weight for layer in by_growth.layers] == ["vector", "matrix", "output"]
    assert [layer.weight for layer in by_module.layers] == ["matrix", "matrix", "matrix"]
    assert [layer.bias for layer in by_growth.layers] == ["vector"] * 3


def test_growth_of_bare_arrays():
    small = {"square": jnp.ones((4, 4)), "wide": jnp.ones((4, 3)), "gain": jnp.ones(4), "scalar": jnp.ones(())}
    large = {"square": jnp.ones((8, 8)), "wide": jnp.ones((8, 3)), "gain": jnp.ones(8), "scalar": jnp.ones(())}
    assert label_by_growth(small, large) == {"square": "matrix", "wide": "vector", "gain": "vector", "scalar": "vector"}
    chosen = label_by_growth(small, large, readout=lambda tree: tree["wide"], classify=lambda path, x: "output" if x.ndim == 0 else None)
    assert chosen == {"square": "matrix", "wide": "output", "gain": "vector", "scalar": "output"}


def test_tied_embeddings_leave_no_output():
    class Tied(eqx.Module):
        shared: eqx.nn.Shared

        def __init__(self, width):
            keys = jax.random.split(jax.random.key(0))
            pair = (eqx.nn.Embedding(5, width, key=keys[0]), eqx.nn.Linear(width, 5, use_bias=False, key=keys[1]))
            self.shared = eqx.nn.Shared(pair, lambda pair: pair[1].weight, lambda pair: pair[0].weight)

    assert jax.tree.leaves(label_by_growth(filled(Tied, 4), filled(Tied, 8))) == ["vector"]


@pytest.mark.parametrize(
    ("small", "large", "message"),
    [
        ({"w": jnp.ones((4, 4))}, {"w": jnp.ones((4, 4))}, "small and large must differ in width"),
        ({"w": jnp.ones((4, 4))}, {"w": jnp.ones((8, 2))}, r"no dimension of \['w'\] may shrink or vanish, got \(4, 4\) and \(8, 2\)"),
        ({"w": jnp.ones((4, 4))}, {"w": jnp.ones(8)}, r"no dimension of \['w'\] may shrink or vanish"),
        ({"w": jnp.ones(4)}, {"v": jnp.ones(8)}, r"must have one structure, \['w'\] is missing in large"),
        ({"w": jnp.ones(4)}, {"w": jnp.ones(8), "v": jnp.ones(8)}, r"\['v'\] of large is no parameter of small"),
    ],
)
def test_models_that_differ_in_more_than_width_are_refused(small, large, message):
    with pytest.raises(ValueError, match=message):
        label_by_growth(small, large)


def test_norm_groups_follow_the_table(model):
    groups = norm_groups(model)
    block = groups.blocks[0]
    assert (groups.embedding.weight, groups.readout.weight, block.experts.router) == ("embed",) * 3
    assert (block.attention.key_proj.weight, block.experts.up, block.down.weight) == ("hidden",) * 3
    assert (groups.readout.bias, block.down.bias, groups.norm.weight, groups.temperature) == ("vector",) * 4


def test_muon_takes_matrices_with_their_orientation(model):
    roles = muon_roles(model)
    axes = matrix_axes(model, roles, "muon")
    block = roles.blocks[0]
    assert (roles.embedding.weight, roles.readout.weight, block.experts.router, block.down.bias) == ("adam",) * 4
    assert axes.embedding.weight is None and axes.readout.weight is None
    # equinox stores (out, in), optax takes (in, out) unless told
    assert axes.blocks[0].attention.value_proj.weight == MatrixAxes((1,), (0,))
    # experts are a batch of matrices
    assert axes.blocks[0].down.weight == axes.blocks[0].experts.up == MatrixAxes((2,), (1,))


def test_axes_serve_optax_muon(model):
    params, roles = eqx.filter(model, eqx.is_inexact_array), muon_roles(model)
    numbers = jax.tree.map(lambda axes: optax.contrib.MuonDimensionNumbers(axes.reduction, axes.output), matrix_axes(model, roles, "muon"))
    optimizer = optax.contrib.muon(1.0, muon_weight_dimension_numbers=lambda _: numbers)
    updates, _ = jax.jit(optimizer.update)(params, optimizer.init(params), params)
    down = updates.blocks[0].down.weight
    singular = np.linalg.svd(down, compute_uv=False)
    assert singular.shape == (3, 4) and (np.abs(singular - 0.9) < 0.25).all()  # each expert orthogonalised by itself


def test_convolutional_networks_are_labelled_right():
    net = filled(ResNet, 1, 10, widths=(8, 16), key=jax.random.key(0))
    labels, axes = label_parameters(net), matrix_axes(net, muon_roles(net), "muon")
    block = labels.stages[1][0]
    assert block.convolutions[0].weight == block.shortcut.weight == labels.stem.weight == "matrix"
    assert (block.norms[0].scale, block.norms[0].shift) == ("vector", "vector")
    assert (labels.readout.weight, labels.readout.bias) == ("output", "vector")
    assert axes.stages[1][0].convolutions[0].weight == MatrixAxes((0, 1, 2), (3,))  # height, width, in, out
    large = filled(ResNet, 1, 10, widths=(16, 32), key=jax.random.key(0))
    by_growth = label_by_growth(net, large)
    assert by_growth.stem.weight == "vector" and by_growth.stages[0][0].convolutions[0].weight == "matrix"


def test_equinox_convolutions():
    key = jax.random.key(0)
    model = {"plain": filled(eqx.nn.Conv2d, 3, 8, 3, key=key), "transposed": filled(eqx.nn.ConvTranspose1d, 3, 8, 3, key=key)}
    axes = matrix_axes(model, muon_roles(model), "muon")
    assert axes["plain"].weight == MatrixAxes((1, 2, 3), (0,)) and axes["transposed"].weight == MatrixAxes((1, 2), (0,))
    assert label_parameters(model)["plain"].bias == "vector"


def test_explicit_choice_beats_rules(model):
    def classify(path, array):
        return {".embedding.weight": "matrix", ".readout.bias": "output"}.get(path)

    labels = label_parameters(model, classify, readout=lambda m: m.blocks[0].down)
    assert (labels.embedding.weight, labels.readout.bias) == ("matrix", "output")
    assert labels.readout.weight == "matrix" and labels.blocks[0].down.weight == "output"
    assert label_parameters(model, readout=()).readout.weight == "matrix"
    assert label_parameters(model, readout=model.readout).readout.weight == "output"
    assert norm_groups(model, classify=lambda path, _: "hidden" if "router" in path else None).blocks[0].experts.router == "hidden"
    roles = muon_roles(model, classify=lambda path, _: "muon" if path == ".embedding.weight" else None)
    assert matrix_axes(model, roles, "muon").embedding.weight == MatrixAxes((1,), (0,))


def test_arrays_without_a_role_are_refused_with_their_path():
    model = {"a": [jnp.ones((2, 3))], "b": jnp.ones(3)}
    for rule in (label_parameters, norm_groups, muon_roles):
        with pytest.raises(ValueError, match=r"no rule gives \['a'\]\[0\] of shape \(2, 3\) a role: declare it"):
            rule(model)
    assert label_parameters(model, lambda path, x: "matrix" if x.ndim == 2 else None) == {"a": ["matrix"], "b": "vector"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: label_parameters(m, lambda *_: "big"), r"label of \.embedding\.weight must be one of matrix, vector, output, got 'big'"),
        (lambda m: label_parameters(m, lambda *_: "matrix"), r"must have two axes or more to be labelled 'matrix', got shape \(4,\)"),
        (lambda m: muon_roles(m, classify=lambda *_: "muon"), "must have two axes or more to be labelled 'muon'"),
        (lambda m: label_parameters(m, readout=lambda m: m.readout.bias), "readout must select a parameter with two axes or more"),
        (lambda m: label_parameters(m, readout=jnp.ones((2, 2))), r"a selection must be part of the model, got an array of shape \(2, 2\)"),
        (lambda m: label_parameters(m, readout=lambda m: 3), "a selection must return parts of the model"),
    ],
)  # fmt: skip
def test_wrong_labels_are_refused_with_their_path(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def test_a_declared_orientation_must_fit_the_array():
    with pytest.raises(ValueError, match=r"\.up of shape \(3,\): reduction and output axes must be axes of an array of rank 1"):
        muon_roles(Experts(jnp.ones(3), jnp.ones((2, 2))))


def test_layers_by_module_and_by_function(model):
    by_module = layer_indices(model, [model.embedding, *model.blocks])
    by_function = layer_indices(model, [lambda m: m.embedding, lambda m: m.blocks[0], lambda m: m.blocks[1]])
    assert by_path(by_module) == by_path(by_function)
    assert by_module.embedding.weight == 1 and set(jax.tree.leaves(by_module.blocks[1])) == {3}
    assert by_module.readout.weight is None and by_module.steps is None
    together = layer_indices(model, [(model.embedding, model.readout), model.blocks])
    assert together.readout.weight == 1 and together.blocks[1].down.bias == 2
    assert count_layers(by_module) == 3 and count_layers(together) == 2


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "layers must hold at least one selection"),
        ([lambda m: m.embedding, lambda m: m.steps], "every layer must hold parameters, layer 2 of 2 holds none"),
        ([lambda m: m.readout, lambda m: m.readout.bias], r"\.readout\.bias is in 1 and 2"),
    ],
)
def test_layers_with_gaps_and_overlaps_are_refused(model, layers, message):
    with pytest.raises(ValueError, match=message):
        layer_indices(model, layers)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ({"a": 1, "b": 3}, "no parameter in layer 2 of 3"),
        ({"a": 2}, "no parameter in layer 1 of 2"),
        ({"a": 0}, r"integers from 1 on, got 0 at \['a'\]"),
        ({"a": 1.0}, r"got 1.0 at \['a'\]"),
        ({"a": True}, r"got True at \['a'\]"),
        ({"a": None}, "at least one layer, got none"),
    ],
)
def test_indices_with_gaps_are_refused(indices, message):
    with pytest.raises(ValueError, match=message):
        count_layers(indices)


def test_check_labels(model):
    labels = label_parameters(model)
    check_labels(model, labels, ("matrix", "vector", "output"))
    check_labels({"a": jnp.ones((2, 2)), "n": 3}, {"a": "x", "n": None}, ("x",))
    with pytest.raises(ValueError, match=r"the label of \.embedding\.weight must be one of matrix, got 'vector'"):
        check_labels(model, labels, ("matrix",))
    missing = eqx.tree_at(lambda m: m.readout.bias, labels, None)
    with pytest.raises(ValueError, match=r"must have one structure, \.readout\.bias is missing in labels"):
        check_labels(model, missing, ("matrix", "vector", "output"))
    with pytest.raises(ValueError, match=r"\['b'\] of labels is no parameter of model"):
        check_labels({"a": jnp.ones(2)}, {"a": "vector", "b": "vector"}, ("vector",))
    with pytest.raises(ValueError, match=r"\['a'\] must have two axes or more to be labelled 'hidden', got shape \(2,\)"):
        check_labels({"a": jnp.ones(2)}, {"a": "hidden"}, ("hidden",), matrices=("hidden",))


@partial(jax.jit, static_argnums=0)
def there_and_back(axes, array):
    folded = axes.fold(array)
    return folded, axes.unfold(folded, array.shape)


@hypothesis.given(st.permutations(range(4)), st.integers(1, 3), st.integers(1, 3))
def test_fold_and_unfold_are_inverse(order, n_in, n_out):
    n_out = min(n_out, 4 - n_in)
    axes = MatrixAxes(tuple(order[:n_in]), tuple(a - 4 for a in order[n_in : n_in + n_out]))
    array = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    folded, unfolded = there_and_back(axes, array)
    assert folded.shape[1] == np.prod([array.shape[a] for a in axes.output])
    np.testing.assert_array_equal(unfolded, array)


def test_fold_is_the_linear_map():
    rng = np.random.default_rng(0)
    convolution = rng.normal(size=(3, 3, 2, 5)).astype(np.float32)  # height, width, in, out
    patch = rng.normal(size=(3, 3, 2)).astype(np.float32)
    (matrix,) = np.asarray(MatrixAxes((0, 1, 2), (3,)).fold(jax.device_put(convolution)))
    np.testing.assert_allclose(matrix @ patch.ravel(), np.einsum("hwi,hwio->o", patch, convolution), rtol=1e-5, atol=1e-5)


def test_axes_named_twice_are_refused():
    with pytest.raises(ValueError, match="no axis may be named twice"):
        MatrixAxes((0, -2), (1,)).of(2)


@pytest.mark.parametrize(("attention", "n_experts"), [("multi_head", 0), ("latent", 4)])
def test_the_decoder_is_labelled_right(attention, n_experts):
    def build(width):
        settings = {"n_layers": 2, "n_heads": 4, "context": 8, "attention": attention, "n_experts": n_experts}
        return eqx.filter_eval_shape(DecoderLM, 50, width, **settings, key=jax.random.key(0))

    by_module, by_growth = by_path(label_parameters(build(32))), by_path(label_by_growth(build(32), build(64)))
    assert by_module == by_growth
    assert by_module[".readout.weight"] == "output" and by_module[".embedding.weight"] == "vector"
    assert all(label == "vector" for path, label in by_module.items() if "norm" in path or "router" in path)
    assert all(label == "matrix" for path, label in by_module.items() if ".feed_forward." in path and "router" not in path)
