"""TangleNAS (arXiv:2312.10440): search by gradients where the weights of architectures are slices of one another.

Fashion-MNIST averaged to 14 × 14 and two spaces take the place of the authors' of thousands, each architecture trained alone beforehand:
64 of the reducing cells of their smaller space, and 81 of the widths and kernels of two convolutions; a character model of Shakespeare
takes that of their language models. In the second space a doubling of the parameters costs half a point of accuracy. All searches have the
rates that stand in the configuration, none is tuned. A few epochs stand for a hundred, with a rate of the logits a hundred times the
authors'.
"""

from __future__ import annotations

import jax

from gradatim.lab import Findings, Session

from .config import Config as Config
from .config import Language as Language
from .config import Mixtures as Mixtures
from .config import Search as Search
from .figures import draw as draw
from .judging import judge
from .language import run_language
from .mixtures import run_mixtures
from .networks import load_parts
from .searches import arms, run_searches

PRECISION = "single"
SCALES = {
    "smoke": Config(
        mixtures=Mixtures(macro_widths=(2, 4), macro_kernels=(1, 3), side=8, batch_size=4, repeats=2),
        search=Search(
            spaces=("macro",),
            dataset="digits",
            pool=8,
            n_train=200,
            n_test=100,
            n_inherited=20,
            n_scored=20,
            steps=6,
            batch_size=16,
            macro_seeds=3,
            n_evaluations=10,
            population=4,
        ),
        language=Language(
            widths=(4, 8),
            heads=(2,),
            ratios=(1, 2),
            depths=(1,),
            context=8,
            batch_size=4,
            steps=6,
            seeds=3,
            n_random=1,
            n_validation=8,
        ),
    ),
    "laptop": Config(),
    "full": Config(
        mixtures=Mixtures(macro_widths=(32, 64, 128), side=28, batch_size=64),
        search=Search(
            pool=28,
            n_train=60_000,
            n_test=10_000,
            n_inherited=10_000,
            n_scored=5000,
            channels=32,
            steps=47_000,
            logit_rate=3e-4,
            rebuild=True,
        ),
        language=Language(
            widths=(96, 192, 384),
            heads=(2, 4, 6),
            ratios=(2, 3, 4),
            depths=(4, 5, 6),
            context=256,
            batch_size=64,
            steps=6000,
            learning_rate=1e-4,
        ),
    ),
}


def memory(config: Config) -> int:
    """Peak bytes: networks with moments of all arms, images, what a batch leaves for its gradient, and texts."""
    search, language = config.search, config.language
    width, depth, ratio = language.widths[-1], language.depths[-1], language.ratios[-1]
    language_net = 4 * depth * width * width * (4 + 2 * ratio) + 4 * 2 * 84 * width
    characters = language.context * language.batch_size
    language_tape = 4 * depth * characters * (width * (14 + 4 * ratio) + 3 * language.context * sum(language.heads))
    texts = 3 * language.steps * language.seeds * language.batch_size * (language.context + 1)
    of_language = 6 * language_net * language.seeds * (2 + language.n_random) + language_tape + texts
    return max(*(_search_memory(search, space) for space in search.spaces), of_language)


def _search_memory(search: Search, space: str) -> int:
    side = search.pool
    if space == "cell":
        n_architectures, n, layers = 64, search.channels, 120
        weights = 100 * n * n + 400 * n + search.hidden * (n * side * side // 4 + 11)
    else:
        # The first convolution has 8 channels at most, the second 16 on a quarter of the pixels.
        n_architectures, n, layers = 81, 8, 10
        weights = 3500 + 10 * side * side
    lanes = max(len(arms(space)) * search.seeds_of(space), n_architectures * search.table_seeds if search.rebuild else 0)
    images = 4 * (search.n_train + search.n_test) * side * side
    tape = 4 * search.batch_size * n * side * side * layers
    evaluated = 4 * (search.n_scored + search.n_inherited) * n * side * side * 12
    return 6 * lanes * 4 * weights + images + tape + evaluated


def run(config: Config, session: Session) -> Findings:
    """Mixtures, searches for images, and language, judged together."""
    key_mixtures, key_cell, key_language, key_macro = jax.random.split(session.key, 4)
    keys = {"cell": key_cell, "macro": key_macro}
    trees = run_mixtures(config, session, key_mixtures)
    parts = load_parts(config.search, session)
    trees |= {space: run_searches(config.search, space, parts, session, keys[space]) for space in config.search.spaces}
    trees |= run_language(config.language, session, key_language)
    return judge(config, trees, session)
