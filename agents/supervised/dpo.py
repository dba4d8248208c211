"""Direct preference optimisation: learning which of two crystals is the better one (Rafailov et al., 2023)."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from agents.crystalformer.distribution import Distribution
from agents.crystalformer.likelihood import Likelihood, log_prob, score
from agents.crystalformer.model import CrystalFormer
from agents.supervised.finetuning_config import FinetuningLoopConfig
from agents.supervised.finetuning_loop import FinetuningLoop
from agents.training.interrupt import Interrupt
from agents.training.run_folder import RunFolder
from crystal_env.arguments import finite_number
from crystal_env.crystal import CrystalBatch
from crystal_env.errors import InputError
from crystal_env.reward import Reward, Scorer, resolve_reward


@dataclass(frozen=True)
class DPOConfig(FinetuningLoopConfig):
    """Settings of `dpo`.

    Attributes:
        chosen: npz file of the better crystals of pairs; by default crystals are sampled, scored and paired.
        rejected: npz file of the worse crystals, in the same order.
        margin: Difference in reward that the crystals of a pair must exceed.
        beta: Strength of the pull towards the initial model.
    """

    validation_fraction: float = 0.2
    chosen: Path | None = None
    rejected: Path | None = None
    margin: float = 0.0
    beta: float = 0.1

    _PATHS: ClassVar[tuple[str, ...]] = (*FinetuningLoopConfig._PATHS, "chosen", "rejected")

    def __post_init__(self) -> None:
        super().__post_init__()
        finite_number("margin", self.margin, least=0)
        finite_number("beta", self.beta, above=0)
        if (self.chosen is None) != (self.rejected is None):
            raise InputError(f"chosen and rejected must be given both, got {self.chosen} and {self.rejected}")


class Pairs(NamedTuple):
    """N pairs of crystals, by row.

    Attributes:
        chosen: the better ones.
        rejected: the worse ones.
    """

    chosen: CrystalBatch
    rejected: CrystalBatch


def dpo(
    config: DPOConfig, progress: bool = True, *, reward: Reward | None = None, pairs: Pairs | None = None
) -> CrystalFormer:
    """Fine-tune a model on pairs of crystals, and return it.

    The pairs are given, or crystals are sampled from the model and paired by their rewards, within their space group
    where possible (see `pair_up`). The reference is the initial model. The samples are in ``samples-0.npz`` of the
    folder (see `agents.training.scored_samples.ScoredSamples`), the pairs in ``chosen.npz`` and ``rejected.npz``.

    SIGINT and SIGTERM end the run after the current step, with its state saved.

    Args:
        config: all settings.
        progress: show bars with the time left.
        reward: takes the place of the reward in the settings.
        pairs: take the place of the files in the settings.

    Raises:
        KeyboardInterrupt: if the run was ended from outside.
        ValueError: if there are no pairs, settings are unusable, or the run to resume was another one.
    """
    with Interrupt() as interrupt, RunFolder(config.run).lock():
        run = FinetuningLoop(config, {"reward": reward, "pairs": pairs}, interrupt, progress)
        if run.at.round == 0:
            pairs, facts = _pairs(run, config, reward, pairs)
            preferences = Preferences(pairs, run, config)
            if progress:
                tqdm.write(f"{len(preferences.sites)} pairs to learn from, of {len(pairs.chosen)}")
            run.fit(preferences, facts | {"pairs": len(preferences.sites)})
    return CrystalFormer.from_pretrained(run.folder.model)


def _pairs(
    run: FinetuningLoop, config: DPOConfig, reward: Reward | None, given: Pairs | None
) -> tuple[Pairs, dict[str, float]]:
    """Return the pairs of a run, with facts about them: those in its folder, else those given, else new ones."""
    facts: dict[str, float] = {}
    paths = [config.run / f"{name}.npz" for name in Pairs._fields]
    if run.at.step and all(path.is_file() for path in paths):
        return Pairs(*map(CrystalBatch.load, paths)), facts
    if given is None and config.chosen is not None and config.rejected is not None:
        given = Pairs(CrystalBatch.load(config.chosen), CrystalBatch.load(config.rejected))
    if given is None:
        if reward is None:
            reward = resolve_reward(config.reward, config.reward_kwargs)
        samples = run.sample(Scorer(reward, config.floor))
        rng = np.random.default_rng(config.seed)
        better, worse = pair_up(samples.crystals.G, samples.result.total, config.margin, rng)
        given = Pairs(samples.crystals[better], samples.crystals[worse])
        facts = {"sampled": len(samples), "reward_mean": float(samples.result.total.mean())}
        if not len(better):
            raise InputError(
                f"no two of {len(samples)} crystals differ in their reward by more than margin = {config.margin}"
            )
    if len(given[0]) != len(given[1]) or not len(given[0]):
        raise InputError(f"chosen and rejected must be as many, at least one, got {len(given[0])} and {len(given[1])}")
    for crystals, path in zip(given, paths, strict=True):
        crystals.save(path)
    return Pairs(*given), facts


def pair_up(
    groups: NDArray[np.int64], rewards: NDArray[np.float64], margin: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair crystals at random, each at most once, and return the rows (N,) of the better and of the worse ones.

    Pairs are of one space group; the crystals that are left over, one for each group of odd size, are paired with
    each other. Pairs whose rewards do not differ by more than ``margin`` are left out.

    Args:
        groups: (B,) space groups.
        rewards: (B,) their rewards.
        margin: in units of the reward.
        rng: source of randomness.
    """
    order = rng.permutation(len(groups))
    order = order[np.argsort(groups[order], kind="stable")]
    _, first, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    single = np.zeros(len(order), bool)
    single[(first + sizes - 1)[sizes % 2 == 1]] = True
    others = rng.permutation(order[single])
    pairs = np.concatenate([order[~single], others[: len(others) // 2 * 2]]).reshape(-1, 2)
    gain = rewards[pairs[:, 0]] - rewards[pairs[:, 1]]
    pairs = np.where((gain > 0)[:, None], pairs, pairs[:, ::-1])[np.abs(gain) > margin]
    return pairs[:, 0], pairs[:, 1]


class Preferences:
    """The loss of pairs of crystals.

    Attributes:
        sites (N,): twice those of the longer crystal of a pair.
        shown: the fraction of pairs in the right order, and how far they are apart.
    """

    shown: tuple[str, ...] = ("accuracy", "margin")

    def __init__(self, pairs: Pairs, run: FinetuningLoop, config: DPOConfig) -> None:
        self.config = config
        self.distribution = run.distribution(np.concatenate([pairs.chosen.G, pairs.rejected.G]))
        start = run.start()
        with torch.no_grad():
            reference = [_log_prob(start, crystals, self.distribution, config.likelihood) for crystals in pairs]
        usable = torch.isfinite(torch.stack(reference)).all(0)
        if not usable.any():
            raise InputError(f"the environment could build both crystals of none of {len(usable)} pairs")
        rows = usable.nonzero()[:, 0].cpu().numpy()
        self.chosen, self.rejected = (crystals[rows] for crystals in pairs)
        self.reference = [log_probs[usable] for log_probs in reference]
        self.sites = 2 * np.maximum(self.chosen.n_sites(), self.rejected.n_sites())

    def __call__(self, model: CrystalFormer, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return the loss of pairs (n,), whether and how far they are in order, and implicit rewards."""
        config, at = self.config, torch.from_numpy(rows).to(model.device)
        both = CrystalBatch.concatenate([self.chosen[rows], self.rejected[rows]])
        chosen, rejected = score(model, both, self.distribution, config.likelihood).total.split(len(rows))
        base_chosen, base_rejected = (log_probs[at] for log_probs in self.reference)
        loss = dpo_loss(chosen, rejected, base_chosen, base_rejected, config.beta)
        rewards = [config.beta * (chosen - base_chosen).detach(), config.beta * (rejected - base_rejected).detach()]
        return {
            "loss": loss,
            "accuracy": (rewards[0] > rewards[1]).to(loss.dtype),
            "margin": rewards[0] - rewards[1],
            "reward_chosen": rewards[0],
            "reward_rejected": rewards[1],
            "log_prob_chosen": chosen.detach(),
        }


def _log_prob(
    model: CrystalFormer, crystals: CrystalBatch, distribution: Distribution, likelihood: Likelihood
) -> Tensor:
    return log_prob(model, crystals, distribution, likelihood).total


def dpo_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> Tensor:
    """Return the losses (N,) of pairs whose log-likelihoods are given.

    With h = ln(p / p_ref) of the chosen minus that of the rejected crystal it is ``-ln sigmoid(beta h)`` (Rafailov et
    al., arXiv:2305.18290, Eq. 7).

    Args:
        chosen: (N,) log-likelihoods of the better crystals.
        rejected: (N,) those of the worse ones.
        reference_chosen: (N,) of the better ones by the reference.
        reference_rejected: (N,) of the worse ones by the reference.
        beta: strength of the pull towards the reference.
    """
    h = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -F.logsigmoid(beta * h)
