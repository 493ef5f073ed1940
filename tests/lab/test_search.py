import datetime
import importlib
import sys

import numpy as np
import pytest

from gradatim.lab.claims import Claim
from gradatim.lab.paper import Paper
from gradatim.lab.registry import papers
from gradatim.lab.search import search

searching = importlib.import_module("gradatim.lab.search")

# None of these is a sentence of the paper's file that it is to find.
PARAPHRASES = {
    "decomposed-diffusion-sampler": "reconstruct a medical scan with a generative model as the prior",
    "deep-conjugate-direction": "let a neural network propose the search direction of a Krylov method",
    "diffgrad": "an Adam variant that brakes where successive gradients hardly change",
    "diffusion-gauge": "does the learned score have to be a gradient of something",
    "driven-coulomb": "ions in an electric field out of equilibrium",
    "drop-muon": "update only some of the layers at each step and stop backpropagation early",
    "equino": "neural operator for the stress in a composite material",
    "geometric-deep-learning": "networks that respect symmetries of groups and graphs",
    "gradient-normalized-smoothness": "Newton's method with a regularisation from the size of the gradient",
    "grokking-li2": "delayed feature learning on modular arithmetic",
    "hamiltonian-meta-learning": "learn the energy of a new mechanical system from few examples",
    "hard-constraint-experts": "split the domain so that each expert satisfies the PDE exactly",
    "hessian-spectrum": "eigenvalues of the curvature of the training loss",
    "high-dimensional-generalization": "how long to train a linear student before it overfits",
    "implicit-differentiation": "derivative of the solution of an optimisation problem",
    "indirect-chemotaxis": "bacteria that swim along a chemical signal",
    "inexact-bilevel": "learn hyperparameters with an approximate hypergradient",
    "jacobian-homeostasis": "biologically plausible learning with nudged fixed points and asymmetric weights",
    "kinetic-optimal-paths": "the path from noise to data that costs the least kinetic energy",
    "lagrangian-pinn": "physics-informed network that follows the characteristics of the flow",
    "lanton": "a learning rate for each layer according to how noisy its gradient is",
    "linear-mode-connectivity": "is there a loss barrier between two networks trained from one start",
    "metallicity-gradients": "how the chemical abundance of galaxies changes with radius",
    "monge-gap": "penalty that makes a map an optimal transport",
    "multiplicative-diffusion": "generative model with log-normal noise for positive data",
    "muon-mla-moe": "orthogonalised momentum for language models with mixture of experts",
    "neural-scaling-laws": "why the loss falls as a power law in data and model size",
    "tanglenas": "architecture search in a supernet with shared weights",
    "thermodynamic-forcing": "heat conduction in a hot dilute plasma",
    "thermomigration": "solute and second-phase particles drift in a temperature gradient",
    "weight-decay-scaling": "hyperparameters that stay good when the network gets wider",
    "zeroth-order": "train without backpropagation by perturbing the weights",
}


def paper(slug, summary, *sentences):
    claims = tuple(Claim(f"C{i}", says) for i, says in enumerate(sentences, 1))
    return Paper(slug, slug.title(), "2601.00001", datetime.date(2026, 1, 1), (), summary, claims)


COOKING = [
    paper("bread", "Dough rises while yeast ferments.", "A longer rest makes a lighter crumb."),
    paper("soup", "Vegetables simmer in a broth.", "Salt draws out the water of an onion."),
    paper("cake", "Eggs and sugar are beaten until pale.", "Baking powder replaces the air that butter cannot hold."),
]


@pytest.fixture
def without_wordllama(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordllama", None)
    searching._model.cache_clear()
    yield
    searching._model.cache_clear()


@pytest.fixture
def with_wordllama():
    pytest.importorskip("wordllama", reason="has no wheel for this Python")


def slugs(words, among, **options):
    return [hit.paper.slug for hit in search(words, among, **options)]


@pytest.mark.usefixtures("with_wordllama")
def test_paraphrases_find_their_paper_among_all():
    found = papers()
    queries = {slug: words for slug, words in PARAPHRASES.items() if slug in found}
    ranks = {slug: slugs(words, list(found.values()), limit=len(found)).index(slug) for slug, words in queries.items()}
    assert ranks
    assert {slug: rank for slug, rank in ranks.items() if rank > 2} == {}
    assert sum(rank == 0 for rank in ranks.values()) >= 0.8 * len(ranks)


@pytest.mark.usefixtures("with_wordllama")
def test_meaning_finds_what_shares_no_word():
    assert slugs("a sweet treat for dessert", COOKING)[0] == "cake"


@pytest.mark.usefixtures("without_wordllama")
def test_without_embeddings_terms_alone_rank():
    assert slugs("a fermenting dough", COOKING)[0] == "bread"
    assert slugs("zzzzz", COOKING) == []


def test_endings_do_not_matter():
    assert slugs("simmering a vegetable", COOKING)[0] == "soup"


def test_ranks_ascend_from_one_to_the_number_of_papers():
    ranks = [hit.rank for hit in search("yeast in dough", COOKING)]
    assert ranks == sorted(ranks)
    assert 1 <= ranks[0] <= ranks[-1] <= len(COOKING)


def test_among_equal_mean_ranks_the_exact_terms_decide(monkeypatch):
    monkeypatch.setattr(searching, "_term_similarity", lambda *_: np.array([0.2, 0.9, 0.0]))
    monkeypatch.setattr(searching, "_meaning_similarity", lambda *_: np.array([0.9, 0.2, 0.0]))
    assert [(hit.paper.slug, hit.rank) for hit in search("salt", COOKING)] == [("soup", 1.5), ("bread", 1.5), ("cake", 3.0)]


def test_limit():
    assert len(slugs("salt and sugar", COOKING, limit=1)) == 1
    assert search("salt", []) == []


@pytest.mark.parametrize("words", ["", "  "])
def test_no_words(words):
    with pytest.raises(ValueError, match="at least one word"):
        search(words, COOKING)
