import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets.geometric import (
    GIN,
    ChebConv,
    DeepSets,
    GraphAttention,
    GraphConv,
    GroupPool,
    Linear2Tensor,
    MatrixProductBlock,
    MessagePassing,
    SetAttention,
    SetLinear,
    adjacency,
    aggregate,
    are_confused,
    are_confused_as_pairs,
    colour_refinement,
    complete_graph,
    cyclic,
    edge_softmax,
    global_pool,
    graph_from_edges,
    intertwiner_basis,
    joined,
    laplacian,
    laplacian_eigenmaps,
    perceptron_messages,
    permuted,
    random_walk_pe,
    ring_encoding,
    standard,
    symmetric,
    with_self_loops,
)

# A few operations of single precision.
ROUND_OFF = 2e-5
PAIRS = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]
RING = [(u, (u + 1) % 12) for u in range(12)]
N = 5


def features(n, channels, seed=0):
    return np.random.default_rng(seed).normal(size=(n, channels)).astype(np.float32)


def noisy(make, seed=0):
    """A module with all weights and biases random, drawn on the host."""
    random = np.random.default_rng(seed)
    shapes = eqx.filter_eval_shape(make)

    def draw(leaf):
        return jax.device_put(random.normal(size=leaf.shape).astype(np.float32)) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf

    return jax.tree.map(draw, shapes, is_leaf=lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))


KEY = jax.random.key(0)
# Node 4 has no neighbours.
GRAPH = graph_from_edges(PAIRS, nodes=features(N, 3))
PADDED = graph_from_edges(PAIRS, nodes=features(N, 3), n_nodes=8, n_edges=16)
ORDER = np.array([3, 0, 4, 1, 2])
LAYERS = {
    "conv": noisy(lambda: GraphConv(3, 2, key=KEY)),
    "conv, mean, wide": noisy(lambda: GraphConv(3, 4, normalisation="mean", key=KEY)),
    "attention": noisy(lambda: GraphAttention(3, 4, n_heads=2, key=KEY)),
    "dot": noisy(lambda: GraphAttention(3, 4, n_heads=2, score="dot", key=KEY)),
    "messages": noisy(lambda: perceptron_messages(3, 2, width=4, key=KEY)),
    "messages, max": noisy(lambda: perceptron_messages(3, 2, width=4, aggregation="max", key=KEY)),
    "gin": noisy(lambda: GIN(3, 2, width=4, key=KEY)),
    "chebyshev": noisy(lambda: ChebConv(3, 2, degree=3, key=KEY)),
}
OTHERS = {
    "set": noisy(lambda: SetLinear(3, 2, key=KEY)),
    "whole": noisy(lambda: SetAttention(3, 4, n_heads=2, key=KEY)),
    "pairs": noisy(lambda: Linear2Tensor(1, 1, key=KEY)),
    "pairs of two": noisy(lambda: Linear2Tensor(2, 2, key=KEY)),
    "product": noisy(lambda: MatrixProductBlock(2, 3, width=2, key=KEY)),
}
MATRIX = features(N * N, 2, 7).reshape(N, N, 2)


@eqx.filter_jit
def everything(layers, others, graphs, matrix):
    """All that these tests look at, as one program."""
    plain, moved, padded, ring, far = graphs
    found = {name: [layer(graph) for graph in (plain, moved, padded)] for name, layer in layers.items()}
    x = plain.nodes
    conv = layers["conv, mean, wide"]
    flat = eqx.tree_at(lambda net: (net.receiving, net.sending), layers["attention"], replace_fn=jnp.zeros_like)
    flat = eqx.tree_at(lambda net: (net.weight, net.bias), flat, (conv.weight.reshape(3, 2, 2), conv.bias))
    found["conv as attention"] = [conv(plain), flat(plain)]
    attention, scaled = layers["attention"], 40.0
    steep = eqx.tree_at(lambda net: (net.receiving, net.sending), attention, (scaled * attention.receiving, scaled * attention.sending))
    found["steep"] = jax.grad(lambda graph: jnp.sum(steep(graph) ** 2), allow_int=True)(plain).nodes
    whole, dot = others["whole"], layers["dot"]
    dot = eqx.tree_at(
        lambda net: (net.receiving, net.sending, net.weight, net.bias), dot, (whole.query, whole.key, whole.value, whole.bias)
    )
    found["transformer"] = [whole(x), dot(complete_graph_of(x))]
    found["whole"] = [whole(x), whole(x[ORDER]), whole(x + jnp.sin(jnp.arange(5.0))[:, None])]
    found["set"] = [others["set"](x), others["set"](x[ORDER])]
    basis = jnp.eye(N * N).reshape(N * N, N, N, 1)
    found["pairs"] = jax.vmap(lambda x: others["pairs"](x) - others["pairs"](jnp.zeros_like(x)))(basis)
    one = others["pairs"]

    def single_generator(k):
        net = eqx.tree_at(lambda net: (net.weight, net.bias), one, (jnp.zeros((15, 1, 1)).at[k].set(1.0), jnp.zeros((2, 1))))
        return jax.vmap(net)(basis)

    found["generators"] = jax.vmap(single_generator)(jnp.arange(15))
    mask = jnp.arange(8) < N
    wider = jnp.full((8, 8, 2), 7.0).at[:N, :N].set(matrix)
    for name in ("pairs of two", "product"):
        found[name] = [others[name](matrix), others[name](matrix[ORDER][:, ORDER]), others[name](wider, mask)]
    found["ring"] = laplacian(ring)
    found["maps"] = laplacian_eigenmaps(ring, 4, "combinatorial").values
    spike = jnp.zeros((12, 3)).at[0].set(1.0)
    found["filter"] = [
        jax.vmap(lambda x: layers["chebyshev"](far.with_nodes(x)))(jnp.stack([far.nodes, spike])),
        laplacian(far, "symmetric"),
    ]
    messages = jnp.ones((len(plain.senders), 1)) * plain.senders[:, None]
    found["aggregates"] = [aggregate(messages, plain, how) for how in ("sum", "mean", "max")]
    found["softmax"] = edge_softmax(1e4 * (messages - 1), plain)
    found["adjacency"] = [adjacency(plain), laplacian(plain, "symmetric"), laplacian(plain, "random walk")]
    return found


def complete_graph_of(x):
    return complete_graph(np.zeros((N, 3), np.float32)).with_nodes(x)


@pytest.fixture(scope="module")
def found():
    ring = graph_from_edges(RING, nodes=np.zeros((12, 1), np.float32))
    far = graph_from_edges(RING, nodes=features(12, 3))
    return jax.device_get(everything(LAYERS, OTHERS, (GRAPH, permuted(GRAPH, ORDER), PADDED, ring, far), jax.device_put(MATRIX)))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_commute_with_permutations_and_ignore_padding(found, name):
    plain, moved, padded = found[name]
    np.testing.assert_allclose(moved, plain[ORDER], rtol=ROUND_OFF, atol=ROUND_OFF)
    np.testing.assert_allclose(padded[:N], plain, rtol=ROUND_OFF, atol=ROUND_OFF)


def test_convolution_is_a_case_of_attention(found):
    np.testing.assert_allclose(*found["conv as attention"], rtol=ROUND_OFF, atol=ROUND_OFF)


def test_attention_is_a_case_of_message_passing():
    net = noisy(lambda: GraphAttention(3, 2, key=KEY))
    weight, p, q = net.weight[:, 0], net.receiving[0, 0], net.sending[0, 0]

    def message(receiver, sender, edge):
        score = jnp.exp(jax.nn.leaky_relu(p @ (receiver @ weight) + q @ (sender @ weight), 0.2))
        return jnp.append(score * (sender @ weight), score)

    passing = MessagePassing(message, lambda own, total: total[:-1] / total[-1] + net.bias)
    ours, theirs = jax.jit(lambda graph: (net(graph), passing(with_self_loops(graph))))(GRAPH)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_o13_attention_without_positions_commutes_with_permutations(found):
    plain, moved, placed = found["whole"]
    np.testing.assert_allclose(moved, plain[ORDER], rtol=ROUND_OFF, atol=ROUND_OFF)
    np.testing.assert_allclose(*found["transformer"], rtol=ROUND_OFF, atol=ROUND_OFF)
    assert np.abs(placed - plain).max() > 0.1


def test_set_layers_commute_with_permutations(found):
    plain, moved = found["set"]
    np.testing.assert_allclose(moved, plain[ORDER], rtol=ROUND_OFF, atol=ROUND_OFF)


def test_o2_the_fifteen_generators_are_all_there_are(found):
    generators = found["generators"].reshape(15, N * N, N * N).transpose(0, 2, 1)
    assert np.linalg.matrix_rank(generators.reshape(15, -1), tol=1e-4) == 15
    things = standard(symmetric(N))
    basis = intertwiner_basis(things * things, things * things).reshape(15, -1)
    flat = generators.reshape(15, -1)
    np.testing.assert_allclose(flat @ basis.T @ basis, flat, atol=ROUND_OFF)
    # The layer is their sum with its weights.
    weights = np.asarray(OTHERS["pairs"].weight)[:, 0, 0]
    np.testing.assert_allclose(found["pairs"].reshape(N * N, -1).T, np.tensordot(weights, generators, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["pairs of two", "product"])
def test_layers_on_pairs_commute_with_permutations_and_ignore_padding(found, name):
    plain, moved, padded = found[name]
    np.testing.assert_allclose(moved, plain[np.ix_(ORDER, ORDER)], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(padded[:N, :N], plain, rtol=1e-4, atol=1e-4)
    assert not padded[N:].any() and not padded[:, N:].any()


def test_o7_rings_and_their_encodings(found):
    L = found["ring"]
    values = np.linalg.eigvalsh(L)
    expected = np.sort(2 - 2 * np.cos(2 * np.pi * np.arange(12) / 12))
    np.testing.assert_allclose(values, expected, atol=1e-5)
    np.testing.assert_allclose(values[[0, 1, 3, 5]], [0, 0.267949, 1, 2], atol=1e-5)
    np.testing.assert_allclose(found["maps"], expected[:4], atol=1e-5)
    encoding = ring_encoding(12, [1, 2, 5])
    np.testing.assert_allclose(L @ encoding, encoding * np.repeat(expected[[1, 3, 9]], 2), atol=1e-5)


def test_o8_a_chebyshev_layer_is_a_polynomial_and_reaches_as_far_as_its_degree(found):
    (filtered, spread), L = found["filter"]
    layer = LAYERS["chebyshev"]
    values, vectors = np.linalg.eigh(L)
    t = values - 1
    filters = np.stack([np.ones(12), t, 2 * t**2 - 1, 4 * t**3 - 3 * t])
    exact = np.einsum("un,kn,vn,vc,kco->uo", vectors, filters, vectors, features(12, 3), np.asarray(layer.weight)) + np.asarray(layer.bias)
    np.testing.assert_allclose(filtered, exact, rtol=1e-4, atol=1e-4)
    reach = np.abs(spread - np.asarray(layer.bias)).max(axis=1)
    steps = np.minimum(np.arange(12), 12 - np.arange(12))
    assert (reach[steps > 3] == 0).all() and (reach[steps <= 3] > 1e-4).all()


def test_trap_no_neighbours_give_zero_and_not_nan(found):
    # Node 4 hears from nobody; node 0 from 1, 2 and 3.
    total, mean, most = (part[:, 0] for part in found["aggregates"])
    assert (total[0], mean[0], most[0]) == (6, 2, 3) and (total[4], mean[4], most[4]) == (0, 0, 0)
    assert all(np.isfinite(part).all() for part in found["adjacency"]) and not found["adjacency"][1][4].any()


def test_trap_softmax_of_large_scores_is_finite(found):
    weights = found["softmax"][:, 0]
    assert np.isfinite(weights).all() and np.isfinite(found["steep"]).all()
    np.testing.assert_allclose([weights[np.asarray(GRAPH.receivers) == u].sum() for u in range(4)], 1, rtol=1e-6)


def test_graphs_side_by_side_are_pooled_apart():
    both = joined([GRAPH, PADDED])
    pooled = jax.jit(lambda graph: [global_pool(graph, how, n_graphs=3) for how in ("sum", "mean", "max")])(both)
    nodes = np.asarray(GRAPH.nodes)
    for found, expected in zip(pooled, (nodes.sum(axis=0), nodes.mean(axis=0), nodes.max(axis=0)), strict=True):
        np.testing.assert_allclose(found, [expected, expected, np.zeros(3)], rtol=1e-5, atol=1e-6)


def test_trap_sums_tell_multisets_apart_and_means_do_not():
    f = jax.jit(lambda x, y, pool: tuple(DeepSets(jnp.tanh, lambda z: z, pool=pool)(z)[0] for z in (x, y)), static_argnums=2)
    for a, b in (([1.0, 1.0], [1.0]), ([1.0, 2.0], [1.0, 1.0, 2.0, 2.0])):
        x, y = (jnp.asarray(z)[:, None] for z in (a, b))
        first, second = f(x, y, "sum")
        assert abs(first - second) > 0.1
        np.testing.assert_allclose(*f(x, y, "mean"), rtol=1e-6)


def circle(n, start=0):
    return [(start + u, start + (u + 1) % n) for u in range(n)]


def plain(pairs, **sizes):
    return graph_from_edges(pairs, nodes=np.zeros((int(np.max(pairs)) + 1, 1)), **sizes)


def test_c6_colour_refinement_confuses_regular_graphs():
    triangles, hexagon = plain(circle(3) + circle(3, 3)), plain(circle(6), n_nodes=9, n_edges=20)
    assert are_confused(triangles, hexagon) and not are_confused_as_pairs(triangles, hexagon)
    path = plain(circle(6)[:-1])
    assert not are_confused(path, hexagon) and [len(np.unique(c)) for c in colour_refinement([path, hexagon])] == [3, 1]
    cells = [(i, j) for i in range(4) for j in range(4)]
    number = {cell: k for k, cell in enumerate(cells)}
    rook = plain([(number[a], number[b]) for a in cells for b in cells if a < b and (a[0] == b[0] or a[1] == b[1])])
    steps = ((1, 0), (0, 1), (1, 1))
    shrikhande = plain([(number[a], number[(a[0] + i) % 4, (a[1] + j) % 4]) for a in cells for i, j in steps])
    assert are_confused(rook, shrikhande) and are_confused_as_pairs(rook, shrikhande)


def test_colours_do_not_depend_on_the_order_of_nodes():
    graph = plain([*circle(5), (0, 5), (2, 6), (6, 7)])
    order = np.random.default_rng(0).permutation(8)
    first, second = colour_refinement([graph, permuted(graph, order)])
    assert (second == first[order]).all() and len(np.unique(first)) == 8


def test_what_is_no_graph_is_refused():
    with pytest.raises(ValueError, match="edges must join nodes between 0 and 1, got 0 and 2"):
        graph_from_edges([(0, 2)], nodes=np.ones((2, 1)))
    with pytest.raises(ValueError, match="n_nodes and n_edges must be at least 2 and 2, got 2 and 1"):
        graph_from_edges([(0, 1)], nodes=np.ones((2, 1)), n_edges=1)
    with pytest.raises(ValueError, match="edges must have features for each of 1 pairs, got 2"):
        graph_from_edges([(0, 1)], nodes=np.ones((2, 1)), edges=np.ones((2, 1)))
    with pytest.raises(ValueError, match="graphs must be at least one"):
        joined([])
    with pytest.raises(ValueError, match="graphs must be at least one"):
        colour_refinement([])
    with pytest.raises(ValueError, match="k must lie between 1 and the number of nodes, 5, got 6"):
        laplacian_eigenmaps(GRAPH, 6)
    with pytest.raises(ValueError, match="a graph whose edges have features gets no loops"):
        with_self_loops(graph_from_edges([(0, 1)], nodes=np.ones((2, 1)), edges=np.ones((1, 1))))


def test_wrong_words_are_refused_with_those_there_are(without_type_checks):
    identity = lambda *parts: parts[0]  # noqa: E731
    for wrong, words in (
        (lambda: aggregate(jnp.ones((10, 1)), GRAPH, "median"), "aggregation must be one of sum, mean, max, got 'median'"),
        (lambda: global_pool(GRAPH, "median"), "aggregation must be one of sum, mean, max, got 'median'"),
        (lambda: MessagePassing(identity, identity, aggregation="min"), "aggregation must be one of sum, mean, max, got 'min'"),
        (lambda: laplacian(GRAPH, "signless"), "kind must be 'combinatorial', 'symmetric' or 'random walk', got 'signless'"),
        (lambda: GraphConv(1, 1, normalisation="none", key=KEY), "normalisation must be 'symmetric', 'mean' or 'sum', got 'none'"),
        (lambda: GraphAttention(1, 1, score="bilinear", key=KEY), "score must be 'additive' or 'dot', got 'bilinear'"),
        (lambda: DeepSets(identity, identity, pool="median"), "pool must be one of sum, mean, max, got 'median'"),
        (lambda: GroupPool(cyclic(4), reduce="sum"), "reduce must be 'mean' or 'max', got 'sum'"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()


def test_walks_come_back_as_often_as_their_matrix_says():
    found = np.asarray(random_walk_pe(plain(RING), 4))
    # Half of the walks of two steps on a ring return, and six of sixteen of four.
    np.testing.assert_allclose(found, np.tile([0, 1 / 2, 0, 3 / 8], (12, 1)), atol=ROUND_OFF)
    order = np.random.default_rng(0).permutation(N)
    np.testing.assert_allclose(random_walk_pe(permuted(GRAPH, order), 5), random_walk_pe(GRAPH, 5)[order], atol=ROUND_OFF)
    padded = random_walk_pe(graph_from_edges(PAIRS, nodes=np.ones((N, 1)), n_nodes=8, n_edges=20), 3)
    assert (np.asarray(padded)[4:] == 0).all()
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        random_walk_pe(GRAPH, 0)


def test_layers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="n_heads must divide the channels that come out, 4, got 3"):
        GraphAttention(2, 4, n_heads=3, key=KEY)
    with pytest.raises(ValueError, match="n_heads must divide the channels that come out, 4, got 0"):
        SetAttention(2, 4, n_heads=0, key=KEY)
    with pytest.raises(ValueError, match="degree must be at least 0, got -1"):
        ChebConv(1, 1, degree=-1, key=KEY)
    with pytest.raises(ValueError, match=r"largest must lie in \(0, 2\], where the spectrum ends, got 3"):
        ChebConv(1, 1, degree=1, largest=3.0, key=KEY)


EDGES = features(len(PAIRS), 2, 5)
GRAPH_WITH_EDGES = graph_from_edges(PAIRS, nodes=features(N, 3, 8), edges=features(len(PAIRS), 2, 9))


def written_out(graph, message):
    """Sums of messages over edges, one by one."""
    x, total = np.asarray(graph.nodes), 0
    for u, v, e, is_there in zip(*map(np.asarray, (graph.receivers, graph.senders, graph.edges, graph.edge_mask)), strict=True):
        if is_there:
            total = total + np.eye(len(x))[u][:, None] * message(x[u], x[v], e)[None]
    return total


def test_edges_take_their_features_with_them():
    layer = noisy(lambda: perceptron_messages(3, 2, n_edge=2, width=4, key=KEY))
    graph = graph_from_edges(PAIRS, nodes=features(N, 3), edges=EDGES, n_edges=12)
    both = joined([graph, graph_from_edges([(1, 0)], nodes=features(2, 3, 4), edges=features(1, 2, 6), directed=True), GRAPH_WITH_EDGES])
    assert both.graph_id.tolist() == [0] * N + [1] * 2 + [2] * N
    np.testing.assert_array_equal(both.edges, np.concatenate([graph.edges, features(1, 2, 6), GRAPH_WITH_EDGES.edges]))
    # Each pair in both directions, with its features.
    told = dict(zip(zip(graph.receivers.tolist(), graph.senders.tolist(), strict=True), np.asarray(graph.edges).tolist(), strict=True))
    assert all(told[u, v] == told[v, u] == e for (u, v), e in zip(PAIRS, EDGES.tolist(), strict=True))

    def perceptron(net, *parts):
        hidden = np.maximum(np.asarray(net.first.weight) @ np.concatenate(parts) + np.asarray(net.first.bias), 0)
        return np.asarray(net.last.weight) @ hidden + np.asarray(net.last.bias)

    total = written_out(both, lambda x, y, e: perceptron(layer.message, x, y, e))
    expected = [perceptron(layer.update, x, m) for x, m in zip(np.asarray(both.nodes), total, strict=True)]
    np.testing.assert_allclose(eqx.filter_jit(layer)(both), expected, rtol=1e-4, atol=1e-4)
    moved = permuted(graph, ORDER)
    np.testing.assert_allclose(written_out(moved, lambda x, y, e: x + y * e[0]), written_out(graph, lambda x, y, e: x + y * e[0])[ORDER])


def test_layers_are_their_equations_in_matrices():
    convs = {
        (name, n_out): noisy(lambda name=name, n_out=n_out: GraphConv(3, n_out, normalisation=name, key=KEY))
        for name in ("symmetric", "mean", "sum")
        for n_out in (2, 4)
    }
    gin, cheb = noisy(lambda: GIN(3, 2, width=4, key=KEY)), noisy(lambda: ChebConv(3, 2, degree=2, largest=1.5, key=KEY))

    @eqx.filter_jit
    def look(convs, gin, cheb, graph):
        return [conv(graph) for conv in convs], gin(graph), cheb(graph), laplacian(graph, "symmetric"), laplacian(graph, "random walk")

    found, of_gin, of_cheb, symmetric_, walk = jax.device_get(look(list(convs.values()), gin, cheb, GRAPH))
    x, A = np.asarray(GRAPH.nodes), np.zeros((N, N))
    for u, v in PAIRS:
        A[u, v] = A[v, u] = 1
    d = (A + np.eye(N)).sum(axis=1)
    scales = {"symmetric": 1 / np.sqrt(d[:, None] * d[None]), "mean": 1 / d[:, None], "sum": 1.0}
    for ((name, _), conv), y in zip(convs.items(), found, strict=True):
        np.testing.assert_allclose(y, (scales[name] * (A + np.eye(N))) @ x @ np.asarray(conv.weight) + np.asarray(conv.bias), atol=1e-4)
    first, last = gin.perceptron.first, gin.perceptron.last
    hidden = np.maximum(((1 + float(gin.epsilon)) * x + A @ x) @ np.asarray(first.weight).T + np.asarray(first.bias), 0)
    np.testing.assert_allclose(of_gin, hidden @ np.asarray(last.weight).T + np.asarray(last.bias), atol=1e-4)
    degree = A.sum(axis=1)
    root = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1)), 0)
    L = np.diag(degree > 0) - root[:, None] * A * root[None]
    np.testing.assert_allclose(symmetric_, L, atol=1e-6)
    np.testing.assert_allclose(walk, np.diag(degree > 0) - A / np.maximum(degree, 1)[:, None], atol=1e-6)
    scaled = 2 * L / 1.5 - np.eye(N)
    terms = np.stack([x, scaled @ x, (2 * scaled @ scaled - np.eye(N)) @ x])
    expected = np.einsum("knc,kco->no", terms, np.asarray(cheb.weight)) + np.asarray(cheb.bias)
    np.testing.assert_allclose(of_cheb, expected, rtol=1e-4, atol=1e-4)


def test_layers_on_sets_and_pairs_are_their_equations():
    linear, pairs, product = OTHERS["set"], OTHERS["pairs of two"], OTHERS["product"]
    x = features(N, 3)

    @eqx.filter_jit
    def look(nets, x, matrix):
        most = DeepSets(lambda x: x[:2], lambda y: 2 * y, pool="max")(x)
        return nets[0](x), nets[1](jnp.zeros_like(matrix)), nets[2](matrix), most

    of_set, of_zero, of_product, most = jax.device_get(look((linear, pairs, product), x, MATRIX))
    own, mean, bias = (np.asarray(part) for part in (linear.own, linear.mean, linear.bias))
    np.testing.assert_allclose(of_set, x @ own + x.mean(axis=0) @ mean + bias, rtol=1e-4, atol=1e-5)
    everywhere, diagonal = np.asarray(pairs.bias)
    np.testing.assert_allclose(of_zero, everywhere + np.eye(N)[..., None] * diagonal, rtol=1e-5, atol=1e-6)
    z = np.einsum("ijc,kcw->kijw", MATRIX, np.asarray(product.factors))
    left, right = z / (1 + np.exp(-z))
    both = np.concatenate([MATRIX, np.einsum("ikw,kjw->ijw", left, right) / N], axis=-1)
    np.testing.assert_allclose(of_product, both @ np.asarray(product.weight) + np.asarray(product.bias), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(most, 2 * x[:, :2].max(axis=0))


@pytest.mark.parametrize(("max_steps", "expected"), [(0, 1), (1, 2), (2, 3), (None, 4)])
def test_colours_are_refined_as_often_as_is_said(max_steps, expected):
    (colours,) = colour_refinement([plain(circle(8)[:-1])], max_steps=max_steps)
    assert len(np.unique(colours)) == expected
