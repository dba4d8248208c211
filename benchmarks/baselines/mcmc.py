"""Markov chain Monte Carlo on the base model times exp(reward / tau): the paper's alternative to training."""

from dataclasses import dataclass

from agents.search.mcmc import mcmc
from agents.search.mcmc_config import MCMCConfig
from benchmarks.baselines.base_model import load_model
from benchmarks.baselines.search import BestSeen, range_width
from benchmarks.harness.model_agent import ModelSampler
from benchmarks.harness.session import Session

_PATIENCE = 20  # runs in a row without a new crystal, after which the search ends


@dataclass(frozen=True)
class MCMC:
    """Runs Metropolis chains on p_base(x) exp(r(x) / tau) (arXiv:2504.02367, Eq. 2), and returns the best crystals.

    A move changes an element, the coordinates of a site or the lattice, or proposes an independent sample of the base
    model; the space group stays. There are as many chains as the budget allows with ``steps`` moves each; calls that
    are left, because proposals were impossible or repeated, go to further moves.

    Attributes:
        model: Base model: ``"mp20"``, which ships with the package, or a path.
        steps: Moves of a chain.
        tau: Temperature as a fraction of the width of the task's reward range; 1/12 is 0.1 eV/atom for stability.
        p_independent: Probability that a move proposes an independent sample.
        device: Device such as ``"cuda"``; ``"auto"`` takes a GPU if there is one.
    """

    model: str = "mp20"
    steps: int = 25
    tau: float = 1 / 12
    p_independent: float = 0.3
    device: str = "auto"

    def train(self, session: Session) -> BestSeen:
        """Spend the budget and return the best seen.

        Raises:
            KeyboardInterrupt: if the run is interrupted.
        """
        task, oracle = session.task, session.oracle
        model, chains, idle = load_model(self.model, self.device), None, 0
        for part in range(10 * self.steps):
            if oracle.spent or idle == _PATIENCE:
                break
            config = MCMCConfig(
                chains=max(1, task.budget // (self.steps + 1)) if chains is None else len(chains),
                steps=self.steps if chains is None else 1,
                tau=self.tau * range_width(task),
                p_independent=self.p_independent,
                space_group=task.constraints.get("space_group", "mp20"),
                constraints=task.options,
                floor=task.floor,
                seed=session.seed + 1000 * part,
            )
            calls = oracle.calls
            result = mcmc(model, session.score, config, initial=chains, progress=False)
            if result.interrupted:
                raise KeyboardInterrupt("the chains were interrupted")
            chains, idle = result.crystals, 0 if oracle.calls > calls else idle + 1
        return BestSeen(session, ModelSampler(model, task))
