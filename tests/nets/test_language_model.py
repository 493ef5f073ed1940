import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.nets import DecoderLM, MultiHeadLatentAttention, cache_bytes, label_parameters, muon_roles

SAME = 2e-5
"Two layers of another order of the same products, single precision."
COMBINATIONS = {
    "multi_head, dense": {},
    "latent, dense": {"attention": "latent"},
    "multi_head, experts": {"n_experts": 6, "n_shared": 2},
    "latent, experts": {"attention": "latent", "n_experts": 6, "n_shared": 2},
}


def decoder(**how):
    return DecoderLM(11, 16, n_layers=2, n_heads=4, context=12, key=jax.random.key(0), **{"hidden": 32} | how)


def text(*shape):
    return np.random.default_rng(0).integers(0, 11, shape, np.int32)


@eqx.filter_jit
def logits(model, tokens):
    return model(tokens)


@pytest.mark.parametrize("how", COMBINATIONS.values(), ids=COMBINATIONS)
def test_decoding_is_the_forward_pass_and_causal(how):
    model, tokens = decoder(**how), text(12)

    @eqx.filter_jit
    def decoded(model, tokens):
        def step(cache, token):
            out, cache = model.decode(token, cache)
            return cache, out

        return jax.lax.scan(step, model.init_cache(), tokens)[1]

    whole = np.asarray(logits(model, tokens))
    np.testing.assert_allclose(decoded(model, tokens), whole, atol=SAME)
    np.testing.assert_allclose(np.asarray(logits(model, np.append(tokens[:7], np.zeros(5, np.int32))))[:7], whole[:7], atol=SAME)


@pytest.mark.parametrize("how", COMBINATIONS.values(), ids=COMBINATIONS)
def test_training_learns_a_text_by_heart(how):
    model, tokens = decoder(**how), text(4, 13)
    optimizer = optax.adam(1e-2)

    @eqx.filter_jit
    def fit(model, state):
        # What is no floating-point array, the experts' bias among them, is carried beside the parameters.
        params, static = eqx.partition(model, eqx.is_array)

        def step(carry, _):
            model, state = eqx.combine(carry[0], static), carry[1]

            def loss(model):
                out, loads = jax.vmap(model.with_loads)(tokens[:, :-1])
                return optax.softmax_cross_entropy_with_integer_labels(out, tokens[:, 1:]).mean(), loads

            (value, loads), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(model)
            updates, state = optimizer.update(gradient, state)
            model = eqx.apply_updates(model, updates).balanced(jax.tree.map(lambda n: n.sum(0), loads))
            return (eqx.filter(model, eqx.is_array), state), value

        (params, _), values = jax.lax.scan(step, (params, state), length=100)
        return eqx.combine(params, static), values

    trained, values = fit(model, optimizer.init(eqx.filter(model, eqx.is_inexact_array)))
    values = np.asarray(values)
    assert abs(values[0] - np.log(11)) < 1 and values[-1] < 0.1
    if "n_experts" in how:
        steps = trained.blocks[0].feed_forward.bias_steps
        assert np.abs(steps).max() > 0 and steps.dtype == jnp.int32


def test_as_many_parameters_are_active_with_experts_as_without():
    dense, sparse = decoder(), decoder(**COMBINATIONS["multi_head, experts"])
    size = lambda *arrays: sum(a.size for a in arrays)  # noqa: E731
    a, b = dense.blocks[0].feed_forward, sparse.blocks[0].feed_forward
    of_a_token = size(b.gate, b.up, b.down) * b.top_k // len(b.gate) + size(*jax.tree.leaves(eqx.filter(b.shared, eqx.is_array)))
    assert of_a_token == size(*jax.tree.leaves(eqx.filter(a, eqx.is_array)))


def test_latent_attention_has_the_papers_sizes_by_default():
    model = eqx.filter_eval_shape(DecoderLM, 5, 64, 1, 4, 8, attention="latent", key=jax.random.key(0))
    attention = model.blocks[0].attention
    assert isinstance(attention, MultiHeadLatentAttention) and (attention.latent_dim, attention.rotary.dim) == (32, 8)
    assert attention.down_query is None
    asking = eqx.filter_eval_shape(DecoderLM, 5, 64, 1, 4, 8, attention="latent", query_latent_dim=16, key=jax.random.key(0))
    assert asking.blocks[0].attention.down_query.weight.shape == (16, 64)
    full = eqx.filter_eval_shape(DecoderLM, 5, 64, 1, 4, 8, key=jax.random.key(0))
    ours, theirs = (eqx.filter_eval_shape(lambda model: model.init_cache(), each) for each in (model, full))
    assert 1 - cache_bytes(ours) / cache_bytes(theirs) == 0.6875


def test_embedding_readout_and_router_are_no_matrices_for_muon():
    roles = muon_roles(decoder(**COMBINATIONS["latent, experts"]))
    block = roles.blocks[0]
    assert {roles.embedding.weight, roles.readout.weight, roles.norm.weight, block.feed_forward.router.weight} == {"adam"}
    assert {block.attention.down.weight, block.attention.output.weight, block.feed_forward.gate} == {"muon"}


def test_queries_and_keys_are_normalised_on_request():
    model = decoder(has_qk_norm=True)
    assert all(block.attention.key_norm.weight.shape == (4,) for block in model.blocks)
    roles = muon_roles(model)
    assert roles.blocks[0].attention.query_norm.weight == "adam" and label_parameters(model).blocks[0].attention.key_norm.weight == "vector"
    assert decoder().blocks[0].attention.query_norm is None
    with pytest.raises(ValueError, match="has_qk_norm must be False with attention 'latent', got True"):
        decoder(attention="latent", has_qk_norm=True)


def test_loads_count_every_choice():
    model, tokens = decoder(**COMBINATIONS["multi_head, experts"]), text(9)
    _, loads = eqx.filter_jit(lambda m, t: m.with_loads(t))(model, tokens)
    assert [np.asarray(load).sum() for load in loads] == [18, 18]
    assert decoder().balanced((None, None)).blocks[0].feed_forward.gate.weight.shape == (32, 16)


def test_a_text_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match="a text may have at most the context's 12 tokens, got 13"):
        decoder()(jnp.zeros(13, jnp.int32))
    with pytest.raises(ValueError, match="capacity must be at most the context of 12 tokens, got 13"):
        decoder().init_cache(13)


def test_a_full_cache_is_an_error():
    model = decoder()
    decode = eqx.filter_jit(lambda model, token, cache: model.decode(token, cache))
    _, cache = decode(model, jnp.array(3), model.init_cache(1))
    with pytest.raises(RuntimeError, match="the cache is full"):
        jax.block_until_ready(decode(model, jnp.array(3), cache))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"attention": "linear"}, "attention must be 'multi_head' or 'latent', got 'linear'"),
        ({"n_experts": 2, "top_k": 3, "n_shared": 1}, "top_k must be at most the number of routed experts, 2, got 3"),
        ({"n_experts": 6, "n_shared": 1, "top_k": 2}, r"n_shared \+ top_k must divide the hidden units, 32, got 1 \+ 2"),
        ({"attention": "latent", "rope_dim": 3}, "the rotary dimension must be even"),
        ({"attention": "latent", "latent_dim": -1}, "latent_dim must be at least 1, got -1"),
        ({"attention": "latent", "latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        ({"attention": "latent", "query_latent_dim": 0}, "query_latent_dim must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"n_experts": 6, "top_k": 0}, r"n_shared \+ top_k must divide the hidden units, 32, got 0 \+ 0"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        decoder(**wrong)


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="n_layers must be at least 1, got 0"):
        DecoderLM(11, 16, 0, 4, 12, key=jax.random.key(0))
    with pytest.raises(ValueError, match="context must be at least 1, got 0"):
        DecoderLM(11, 16, 1, 4, 0, key=jax.random.key(0))


@pytest.mark.parametrize("how", COMBINATIONS.values(), ids=COMBINATIONS)
def test_the_logits_are_what_the_parts_make_of_a_text(how):
    random, tokens = np.random.default_rng(0), text(9)
    drawn = lambda leaf: jax.device_put(random.uniform(0.5, 1.5, leaf.shape).astype(np.float32))  # noqa: E731
    # Gains that differ from norm to norm.
    gains = lambda m: [m.norm.weight, *(n.weight for b in m.blocks for n in (b.attention_norm, b.feed_forward_norm))]  # noqa: E731
    model = decoder(**how)
    model = eqx.tree_at(gains, model, [drawn(gain) for gain in gains(model)])

    @eqx.filter_jit
    def parts(model):
        def normed(norm, x):
            return x * jax.lax.rsqrt((x**2).mean(axis=1, keepdims=True) + 1e-5) * norm.weight[None]

        x = model.embedding.weight[tokens]
        for block in model.blocks:
            x = x + block.attention(normed(block.attention_norm, x))
            fed = block.feed_forward(normed(block.feed_forward_norm, x))
            x = x + (fed[0] if "n_experts" in how else fed)
        return normed(model.norm, x) @ model.readout.weight.T

    np.testing.assert_allclose(logits(model, tokens), parts(model), atol=SAME)


@pytest.mark.parametrize("how", COMBINATIONS.values(), ids=COMBINATIONS)
def test_no_two_matrices_begin_alike(how):
    matrices = [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(decoder(**how), eqx.is_inexact_array)) if leaf.ndim > 1]
    firsts = {round(float(matrix.ravel()[0] / np.abs(matrix).max()), 6) for matrix in matrices}
    assert len(firsts) == len(matrices)


def test_units_are_eight_thirds_of_the_width_by_default():
    model = eqx.filter_eval_shape(DecoderLM, 5, 64, 1, 4, 8, key=jax.random.key(0))
    assert model.blocks[0].feed_forward.gate.weight.shape == (168, 64)
