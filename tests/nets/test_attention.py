import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets import MultiHeadAttention, MultiHeadLatentAttention, RotaryEmbedding, cache_bytes
from gradatim.nets.feed_forward import of_rows

WIDTH, HEADS, TOKENS = 16, 4, 9
SAME = 1e-5
"Another order of the same products, single precision."


def texts(*shape, seed=0):
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def latent(key, **sizes):
    return MultiHeadLatentAttention(WIDTH, HEADS, **{"latent_dim": 8, "rope_dim": 2} | sizes, key=key)


def asking(key):
    return latent(key, query_latent_dim=6)


def full(key, **sizes):
    return MultiHeadAttention(WIDTH, HEADS, **sizes, key=key)


def normed(key):
    return full(key, has_qk_norm=True)


@eqx.filter_jit
def decoded(attention, x, capacity, **how):
    def step(cache, row):
        y, cache = attention.decode(row, cache, **how)
        return cache, y

    return jax.lax.scan(step, attention.init_cache(capacity), x)


@eqx.filter_jit
def at_once(attention, x):
    return attention(x)


@pytest.mark.parametrize("make", [full, normed, latent, asking])
def test_o6_decoding_is_the_forward_pass_at_every_position(make, getkey):
    attention, x = make(getkey()), texts(TOKENS, WIDTH)
    cache, y = decoded(attention, x, TOKENS)
    np.testing.assert_allclose(y, at_once(attention, x), atol=SAME)
    assert cache.length == TOKENS


@pytest.mark.parametrize("make", [latent, asking])
def test_o6_absorbed_decoding_is_that_with_keys_and_values(make, getkey):
    attention, x = make(getkey()), texts(TOKENS, WIDTH)
    np.testing.assert_allclose(decoded(attention, x, 12)[1], decoded(attention, x, 12, is_absorbed=False)[1], atol=SAME)


@pytest.mark.parametrize("make", [full, latent])
def test_o6_later_tokens_do_not_change_earlier_outputs(make, getkey):
    attention, x = make(getkey()), texts(TOKENS, WIDTH)
    other = np.append(np.asarray(x)[:5], texts(TOKENS - 5, WIDTH, seed=1), axis=0)
    changed, before = (np.asarray(at_once(attention, each)) for each in (other, x))
    np.testing.assert_array_equal(changed[:5], before[:5])
    assert np.abs(changed[5:] - before[5:]).max() > 0.01


@pytest.mark.parametrize("make", [full, normed, latent, asking])
def test_texts_padded_at_either_end_are_read_as_they_are(make, getkey):
    attention, x = make(getkey()), texts(TOKENS, WIDTH)
    alone, padding, here = at_once(attention, x), texts(3, WIDTH, seed=1), np.ones(TOKENS, bool)
    masked = eqx.filter_jit(lambda attention, x, mask: attention(x, mask))
    left = masked(attention, jnp.concatenate([padding, x]), jnp.concatenate([np.zeros(3, bool), here]))
    np.testing.assert_allclose(left[3:], alone, atol=SAME)
    # There is nothing that the padding in front may attend to.
    assert not left[:3].any()
    right = masked(attention, jnp.concatenate([x, padding]), jnp.concatenate([here, np.zeros(3, bool)]))
    np.testing.assert_allclose(right[:TOKENS], alone, atol=SAME)
    np.testing.assert_array_equal(masked(attention, x, jnp.asarray(here)), alone)


@pytest.mark.parametrize("make", [full, latent])
def test_a_masked_token_tells_the_others_nothing(make, getkey):
    attention, x, mask = make(getkey()), texts(TOKENS, WIDTH), jnp.arange(TOKENS) % 4 != 0

    @eqx.filter_jit
    def influence(attention, x):
        return jax.jacobian(lambda x: attention(x, mask).sum(-1))(x)

    through = np.abs(np.asarray(influence(attention, x))).sum(-1)
    assert np.isfinite(through).all()
    of_masked = through[:, ~np.asarray(mask)]
    # A masked token's own question still counts for its own output, but for the first, which has nothing to ask.
    others = np.arange(TOKENS)[:, None] != np.flatnonzero(~np.asarray(mask))[None]
    assert not of_masked[others].any() and not through[0].any() and (through[1:, 1] > 0).all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones(TOKENS + 1, bool), rf"mask must be {TOKENS} bools, one a token, got \({TOKENS + 1},\) of bool"),
        (np.zeros(TOKENS, np.float32), rf"mask must be {TOKENS} bools, one a token, got \({TOKENS},\) of float32"),
    ],
)
@pytest.mark.parametrize("make", [full, latent])
def test_a_mask_that_does_not_fit_is_refused(make, mask, message, getkey):
    with pytest.raises(ValueError, match=message):
        make(getkey())(texts(TOKENS, WIDTH), jnp.asarray(mask))


def test_o6_rotary_scores_depend_on_the_distance_alone():
    rotary = RotaryEmbedding(8)
    q, k = (texts(1, 1, 8, seed=seed) for seed in range(2))

    @jax.jit
    def score(t, s):
        return (rotary(q, t[None]) * rotary(k, s[None])).sum()

    near, far = (np.array([score(jnp.array(t + shift), jnp.array(t)) for shift in range(4)]) for t in (3, 40))
    np.testing.assert_allclose(near, far, atol=SAME)
    assert np.abs(near - near[0]).max() > 0.01
    assert score(jnp.array(7), jnp.array(7)) == pytest.approx(np.vdot(q, k), abs=SAME)


def test_o6_rotary_angles_are_those_of_the_formula():
    turned = np.asarray(jax.jit(RotaryEmbedding(4, base=100.0))(jnp.array([[[1.0, 0.0, 0.0, 1.0]]]), jnp.array([3])))[0, 0]
    expected = [np.cos(3.0), -np.sin(0.3), np.sin(3.0), np.cos(0.3)]
    np.testing.assert_allclose(turned, expected, atol=1e-6)


def test_o6_a_latent_as_wide_as_the_tokens_gives_full_attention_without_positions(getkey):
    ours = latent(getkey(), latent_dim=WIDTH, rope_dim=0, is_normalised=False)
    theirs = full(getkey(), is_rotary=False)
    weights = lambda m: (m.query.weight, m.key.weight, m.value.weight, m.output.weight)  # noqa: E731
    key, value = (jax.device_put(np.asarray(up.weight) @ np.asarray(ours.down.weight)) for up in (ours.up_key, ours.up_value))
    theirs = eqx.tree_at(weights, theirs, (ours.query.weight, key, value, ours.output.weight))
    x = texts(TOKENS, WIDTH)
    np.testing.assert_allclose(at_once(ours, x), at_once(theirs, x), atol=SAME)


def test_full_attention_is_that_of_jax(getkey):
    attention, x = full(getkey(), is_rotary=False), texts(TOKENS, WIDTH)

    @eqx.filter_jit
    def theirs(attention, x):
        q, k, v = (of_rows(linear, x).reshape(TOKENS, HEADS, -1) for linear in (attention.query, attention.key, attention.value))
        return of_rows(attention.output, jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(TOKENS, -1))

    np.testing.assert_allclose(at_once(attention, x), theirs(attention, x), atol=SAME)


def test_normalised_queries_and_keys_bound_the_scores_whatever_their_matrices(getkey):
    attention, x = normed(getkey()), texts(TOKENS, WIDTH)
    q, k, _ = eqx.filter_jit(lambda a, x: a._heads(x, jnp.arange(len(x))))(attention, x)
    assert np.abs(np.einsum("the,she->hts", q, k) / 2.0).max() <= 2.0 + SAME  # √d_h of heads of 4
    larger = eqx.tree_at(lambda a: (a.query.weight, a.key.weight), attention, replace_fn=lambda w: jnp.asarray(100 * np.asarray(w)))
    np.testing.assert_allclose(at_once(larger, x), at_once(attention, x), atol=1e-3)
    gains = eqx.tree_at(lambda a: a.query_norm.weight, attention, jnp.zeros(4))
    value, output = (np.asarray(linear.weight) for linear in (attention.value, attention.output))
    np.testing.assert_allclose(np.asarray(at_once(gains, x))[-1], (np.asarray(x) @ value.T @ output.T).mean(0), atol=SAME)


def test_half_precision_stays_so():
    for make, how in ((full, {}), (normed, {}), (latent, {}), (asking, {}), (latent, {"is_absorbed": False})):
        attention = jax.eval_shape(lambda make=make: jax.tree.map(lambda p: p.astype(jnp.bfloat16), make(jax.random.key(0))))
        x = jax.ShapeDtypeStruct((TOKENS, WIDTH), jnp.bfloat16)
        assert eqx.filter_eval_shape(lambda a, x: a(x), attention, x).dtype == jnp.bfloat16
        y, cache = eqx.filter_eval_shape(lambda a, x, how=how: a.decode(x[0], a.init_cache(3), **how), attention, x)
        assert {leaf.dtype for leaf in jax.tree.leaves((y, cache)) if leaf.ndim} == {jnp.dtype(jnp.bfloat16)}


def test_the_cache_is_smaller_by_the_factor_of_the_formula():
    width, heads = 128, 8
    key = jax.random.key(0)
    ours = eqx.filter_eval_shape(MultiHeadLatentAttention, width, heads, latent_dim=width // 2, rope_dim=width // 8, key=key)
    theirs = eqx.filter_eval_shape(MultiHeadAttention, width, heads, key=key)
    caches = [eqx.filter_eval_shape(lambda m: m.init_cache(1000), m) for m in (ours, theirs)]
    assert [cache_bytes(cache) for cache in caches] == [4 * 1000 * 80, 4 * 1000 * 256]
    assert 1 - cache_bytes(caches[0]) / cache_bytes(caches[1]) == 0.6875


@pytest.mark.parametrize("make", [full, latent])
def test_an_overfull_cache_is_an_error(make, getkey):
    attention, x = make(getkey()), texts(4, WIDTH)
    cache, _ = decoded(attention, x, 4)
    with pytest.raises(RuntimeError, match="the cache is full: give init_cache a larger capacity"):
        jax.block_until_ready(eqx.filter_jit(lambda m, row, c: m.decode(row, c))(attention, np.asarray(x)[0], cache))


@pytest.mark.parametrize("make", [full, latent, asking])
def test_batches_and_gradients(make, getkey):
    attention, x = make(getkey()), texts(3, TOKENS, WIDTH)
    batched = eqx.filter_jit(eqx.filter_vmap(lambda m, x: m(x), in_axes=(None, 0)))(attention, x)
    rows = np.asarray(x)
    np.testing.assert_allclose(batched, np.stack([at_once(attention, each) for each in rows]), atol=SAME)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda m, x: (m(x) ** 2).sum()))(attention, rows[0])
    leaves = jax.tree.leaves(gradient)
    assert len(leaves) == len(jax.tree.leaves(eqx.filter(attention, eqx.is_inexact_array)))
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in leaves)


@pytest.mark.parametrize(
    ("make", "wrong", "message"),
    [
        (latent, {"rope_dim": 3}, "the rotary dimension must be even and at least 0, got 3"),
        (latent, {"rope_dim": -2}, "the rotary dimension must be even and at least 0, got -2"),
        (latent, {"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        (latent, {"query_latent_dim": 0}, "query_latent_dim must be at least 1, got 0"),
        (latent, {"head_dim": 0}, "head_dim must be at least 1, got 0"),
        (full, {"head_dim": 3}, "the rotary dimension must be even and at least 0, got 3"),
        (full, {"head_dim": -1}, "head_dim must be at least 1, got -1"),
    ],
)
def test_sizes_out_of_range_are_refused(make, wrong, message):
    with pytest.raises(ValueError, match=message):
        make(jax.random.key(0), **wrong)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="n_heads must divide the width of 16, got 3; or give head_dim"):
        MultiHeadAttention(16, 3, key=jax.random.key(0))
    found = jax.eval_shape(lambda key, x: MultiHeadAttention(16, 3, head_dim=4, key=key)(x), jax.random.key(0), jnp.ones((2, 16)))
    assert found.shape == (2, 16)
    with pytest.raises(ValueError, match="n_heads must be at least 1, got 0"):
        MultiHeadAttention(16, 0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        full(jax.random.key(0)).init_cache(0)
    with pytest.raises(ValueError, match=r"base must be above 1, got 1\.0"):
        RotaryEmbedding(2, base=1.0)


def turned(x, base=10_000.0):
    """Every token turned to its place, in NumPy."""
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None, None] * base ** (-np.arange(half) / half)
    (first, second), (cos, sin) = np.split(x, 2, axis=-1), (np.cos(angles), np.sin(angles))
    return np.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def product(linear, x):
    return (x @ np.asarray(linear.weight).T).reshape(len(x), HEADS, -1)


def unit(x):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)


def attended(scores, v, output):
    weights = np.where(np.tri(TOKENS, dtype=bool), np.exp(scores), 0)
    weights = weights / weights.sum(axis=-1, keepdims=True)
    return np.einsum("hts,she->the", weights, v).reshape(TOKENS, -1) @ np.asarray(output.weight).T


@pytest.mark.parametrize("has_qk_norm", [False, True])
def test_full_attention_is_that_of_its_equation(has_qk_norm, getkey):
    attention, x = full(getkey(), has_qk_norm=has_qk_norm), texts(TOKENS, WIDTH)
    q, k, v = (product(linear, np.asarray(x)) for linear in (attention.query, attention.key, attention.value))
    q, k = (turned(unit(part) if has_qk_norm else part) for part in (q, k))
    expected = attended(np.einsum("the,she->hts", q, k) / 2, v, attention.output)  # heads of 4
    np.testing.assert_allclose(at_once(attention, x), expected, atol=SAME)


@pytest.mark.parametrize("is_normalised", [False, True])
@pytest.mark.parametrize("query_latent_dim", [None, 6])
def test_latent_attention_is_that_of_its_equation(query_latent_dim, is_normalised, getkey):
    sizes = {"rope_dim": 4, "query_latent_dim": query_latent_dim, "is_normalised": is_normalised}
    attention, x = latent(getkey(), **sizes), texts(TOKENS, WIDTH)
    rows = np.asarray(x)
    c = rows @ np.asarray(attention.down.weight).T
    c = unit(c) if is_normalised else c
    asked = rows
    if query_latent_dim is not None:
        asked = rows @ np.asarray(attention.down_query.weight).T
        asked = unit(asked) if is_normalised else asked
    q, k, v = product(attention.query, asked), product(attention.up_key, c), product(attention.up_value, c)
    q_rope = turned(product(attention.rope_query, asked))
    k_rope = turned((rows @ np.asarray(attention.rope_key.weight).T)[:, None])[:, 0]
    scores = (np.einsum("the,she->hts", q, k) + np.einsum("the,se->hts", q_rope, k_rope)) / np.sqrt(4 + 4)
    np.testing.assert_allclose(at_once(attention, x), attended(scores, v, attention.output), atol=SAME)
