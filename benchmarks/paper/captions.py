"""What the captions of several figures say: what stands in for the paper's models and data, and how large it is."""

from benchmarks.paper.settings import Settings
from benchmarks.paper.work import SHIPPED_HULL, Work

_BEST = (
    "one step a batch at four times the learning rate, which rises and falls, the space group's mean as baseline, no "
    "gradient of the lattice, and energies clipped to [-1, 2] eV/atom in the reward"
)


def about(work: Work) -> str:
    """Return what energies, hull, base model and training set are, and in what they differ from the paper's."""
    settings, hull = work.settings, work.hull
    if settings.hull is None and hull != SHIPPED_HULL:
        hull = "formation energies of the Materials Project"
    potential = "CHGNet 0.3.0 (the paper: Orb-v2, whose weights are not here)"
    if settings.orb_file() is not None:
        potential = "Orb-v2"
    temperature = settings.temperature
    sampled = "what each model recommends" if temperature is None else f"temperature {temperature:g}"
    return (
        f"Energies: {potential}, of crystals as sampled. Hull: {hull} (the paper: Alexandria's). Base model: "
        f"{settings.base} (the paper: trained on Alex-20). Training set, for space groups and novelty: "
        f"{settings.training_file().name} (the paper: Alex-20). Samples at {sampled}, seed "
        f"{settings.seed}."
    )


def about_rl(settings: Settings) -> str:
    """Return how large the reinforcement is beside the paper's, and in what its setting differs."""
    how = "as in Table S1" if settings.preset == "paper" else f"as in Table S1 but {_BEST}"
    size = f"{settings.iterations} iterations of {settings.batch_size} crystals (the paper: 100 to 200 of 1,000)"
    return f"RL: {size}, {how}."
