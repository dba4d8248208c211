"""What the captions of several figures say: what stands in for the paper's models and data, and how large it is."""

from agents.crystalformer.temperature import Temperatures
from agents.klppo.config import SHARP
from benchmarks.paper.settings import Settings
from benchmarks.paper.work import SHIPPED_HULL, Work

_SUN = "rewards.SUN of these energies and the training set"
_BEST = (
    "the preset best: everything scored so far is replayed (tapered off-policy REINFORCE), with the space group's mean "
    "as baseline, at three times the learning rate, which rises and falls; coordinates and lattice, at temperature "
    "0.1, are learned by likelihood"
)


def about(work: Work) -> str:
    """Return what energies, hull, base model and training set are, and in what they differ from the paper's."""
    settings, hull = work.settings, work.hull
    if settings.hull is None and hull != SHIPPED_HULL:
        hull = "formation energies of the Materials Project"
    potential = "CHGNet 0.3.0 (the paper: Orb-v2, whose weights are not here)"
    if settings.orb_file() is not None:
        potential = "Orb-v2"
    temperature = 1.0 if settings.temperature is None else settings.temperature
    return (
        f"Energies: {potential}, of crystals as sampled. Hull: {hull} (the paper: Alexandria's). Base model: "
        f"{settings.base} (the paper: trained on Alex-20). Training set, for space groups and novelty: "
        f"{settings.training_file().name} (the paper: Alex-20). Samples at temperature "
        f"{temperature:g}, seed {settings.seed}."
    )


def about_rl(settings: Settings, reward: str = "") -> str:
    """Return how large the reinforcement is beside the paper's, and in what its setting differs.

    Args:
        settings: sizes and preset.
        reward: what is maximised, by default the energy above the hull or, with the preset ``best``, S.U.N.
    """
    size = f"{settings.iterations} iterations of {settings.batch_size} crystals (the paper: 100 to 200 of 1,000)"
    if settings.preset == "paper":
        return f"RL: {size}, as in Table S1, on {reward or 'the energy above the hull'}."
    sharp = Temperatures.of(SHARP).in_words()
    text = f"RL: {size}, with {_BEST}, on {reward or _SUN}."
    return text if settings.temperature is not None else f"{text} RL, and what is called sharp, is sampled at {sharp}."
