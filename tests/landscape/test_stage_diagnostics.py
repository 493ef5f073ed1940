import jax
import jax.numpy as jnp
import numpy as np

from gradatim.landscape import PairNetwork, Pairs, class_centred_loss, stage_diagnostics


def test_diagnostics_are_those_of_written_out_matrices():
    random = np.random.default_rng(0)
    network = PairNetwork(jnp.asarray(random.normal(size=(10, 4)), jnp.float32), jnp.asarray(random.normal(size=(4, 5)), jnp.float32))
    pairs = random.integers(0, 5, (6, 2))
    labels, seen = pairs.sum(axis=1) % 5, np.arange(6) < 5
    found = stage_diagnostics(network, Pairs(jnp.asarray(pairs), jnp.asarray(labels)), seen=jnp.asarray(seen))

    first, V = np.asarray(network.first, float), np.asarray(network.readout, float)
    F = ((first[pairs[:, 0]] + first[5 + pairs[:, 1]]) ** 2)[:5]
    outputs = F @ V
    error = np.eye(5)[labels[:5]] - 1 / 5 - (outputs - outputs.mean(axis=1, keepdims=True))
    assert np.isclose(found.feature_gradient, np.linalg.norm(error @ V.T), rtol=1e-5)
    centred = F - F.mean(axis=0)
    for ratio, gram in ((found.off_diagonal_nodes, centred.T @ centred), (found.off_diagonal_samples, centred @ F.T)):
        n = len(gram)
        off = (abs(gram).sum() - abs(np.diag(gram)).sum()) / (n * (n - 1))
        assert np.isclose(ratio, off / abs(np.diag(gram)).mean(), rtol=1e-5)


def test_the_gradient_is_that_of_the_loss_by_the_features():
    random = np.random.default_rng(1)
    network = PairNetwork(jnp.asarray(random.normal(size=(10, 4)), jnp.float32), jnp.asarray(random.normal(size=(4, 5)), jnp.float32))
    pairs = jnp.asarray(random.integers(0, 5, (6, 2)))
    table = Pairs(pairs, pairs.sum(axis=1) % 5)
    loss = lambda features: class_centred_loss(features @ network.readout, table.labels)  # noqa: E731
    gradient = jax.grad(loss)(network.features(pairs))
    # The loss is the mean of the squares: 2/n of what is sent back. The mean over the classes is not sent back by its gradient.
    V = network.readout - network.readout.mean(axis=1, keepdims=True)
    found = stage_diagnostics(PairNetwork(network.first, V), table).feature_gradient
    assert np.isclose(found, 6 / 2 * jnp.linalg.norm(gradient), rtol=1e-5)
