"""Gradients without derivatives: one family with the shape of `jax.value_and_grad`.

| function | what it uses | evaluations a step | state |
| --- | --- | --- | --- |
| `finite_differences` | every coordinate | 2d + 1 | none |
| `random_directions`, `spsa`, `gaussian_smoothing` | K random directions | 2K, K + 1 or K | none |
| `forward_gradient` | K exact directional derivatives | about 2K | none |
| `guided_directions` | K directions near surrogate gradients | 2K | the surrogates |
| `evolution_strategy` | ranks within a population of n | n | none |
| `natural_evolution_strategy` | ranks within a population of n | n | a radius for each parameter |
| `weight_perturbation`, `node_perturbation`, `activity_perturbation` | noise in a layered network | K + 1 | none |
| `mezo_step` | one direction, drawn again from its key | 2 | a key |
| `one_plus_one`, `simulated_annealing` | whether one random trial is better | 1 | the loss, a radius |
| `ornstein_uhlenbeck_adaptation`, `reward_modulated_hebbian` | the noise of the parameters or units, a reward | 1 | running means |
| `taylor_step` | derivatives up to order 3 | - | none |

Derivative-free methods that other libraries have, and these functions do not repeat: CMA-ES (`cma`, `evosax`), Nelder–Mead (`scipy`,
`optimistix`), particle swarms and genetic algorithms (`evosax`).
"""

from .directions import Difference as Difference
from .directions import Directions as Directions
from .directions import Nonfinite as Nonfinite
from .directions import ValueAndGrad as ValueAndGrad
from .directions import finite_differences as finite_differences
from .directions import forward_gradient as forward_gradient
from .directions import gaussian_smoothing as gaussian_smoothing
from .directions import random_directions as random_directions
from .directions import spsa as spsa
from .directions import with_estimated_gradient as with_estimated_gradient
from .evolution import SPSAGains as SPSAGains
from .evolution import best_half_directions as best_half_directions
from .evolution import centered_ranks as centered_ranks
from .evolution import evolution_strategy as evolution_strategy
from .evolution import guided_directions as guided_directions
from .evolution import raw_losses as raw_losses
from .evolution import spsa_gains as spsa_gains
from .evolution import standardized as standardized
from .evolution import without_mean as without_mean
from .natural_evolution import SearchDistribution as SearchDistribution
from .natural_evolution import log_ranks as log_ranks
from .natural_evolution import natural_evolution_strategy as natural_evolution_strategy
from .ornstein_uhlenbeck import Adaptation as Adaptation
from .ornstein_uhlenbeck import ornstein_uhlenbeck_adaptation as ornstein_uhlenbeck_adaptation
from .perturbation import DecorrelatedMLP as DecorrelatedMLP
from .perturbation import Layered as Layered
from .perturbation import activity_gradient as activity_gradient
from .perturbation import activity_perturbation as activity_perturbation
from .perturbation import decorrelated as decorrelated
from .perturbation import layer_pass as layer_pass
from .perturbation import node_perturbation as node_perturbation
from .perturbation import weight_perturbation as weight_perturbation
from .plasticity import eligibility_trace as eligibility_trace
from .plasticity import hebbian as hebbian
from .plasticity import oja as oja
from .plasticity import reward_modulated_hebbian as reward_modulated_hebbian
from .replay import ReplayStep as ReplayStep
from .replay import mezo_step as mezo_step
from .replay import replay_updates as replay_updates
from .search import AnnealingState as AnnealingState
from .search import RandomSearch as RandomSearch
from .search import SearchState as SearchState
from .search import one_plus_one as one_plus_one
from .search import simulated_annealing as simulated_annealing
from .taylor import taylor_step as taylor_step
