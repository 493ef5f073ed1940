import numpy as np
import pytest


@pytest.fixture
def known_results():
    """Of findings: their data by name, and what puts known numbers there, for a test of what is made of them."""

    def of(findings):
        trees = {name: node.to_dataset() for name, node in findings.data.children.items()}

        def put(name, **values):
            # The same along every axis that is not told apart.
            for key, value in values.items():
                old = trees[name][key]
                trees[name] = trees[name].assign({key: (old.dims, np.broadcast_to(value, old.shape).astype(float))})

        return trees, put

    return of
