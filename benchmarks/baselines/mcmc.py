"""Markov chain Monte Carlo on the base model times exp(reward / tau): the paper's alternative to training."""

from dataclasses import dataclass

from agents.search.mcmc import mcmc
from agents.search.mcmc_config import MCMCConfig
from benchmarks.baselines.base_model import load_model
from benchmarks.baselines.search import BestSeen, unit
from benchmarks.harness.model_agent import ModelSampler
from benchmarks.harness.session import Session

_PATIENCE = 20  # runs without a new crystal, after which nothing new is to be expected


@dataclass(frozen=True)
class MCMC:
    """Moves Metropolis chains on p_base(x) exp(r(x) / tau) (arXiv:2504.02367, Eq. 2), and keeps the best it meets.

    A chain changes an element, the coordinates of a site or the lattice, or takes a whole new crystal of the base
    model; its space group stays. There are as many chains as the budget has for ``steps`` moves each; what is left
    after these, because some proposals are not possible or were met before, goes to further moves.

    Attributes:
        model: the base model: ``"mp20"``, which ships with the package, or a path.
        steps: moves of a chain.
        tau: temperature, as a share of the width of the task's range of totals; 1/12 is 0.1 eV/atom for stability.
        p_independent: fraction of the steps that propose a whole new crystal.
        device: such as ``"cuda"``; ``"auto"`` is a GPU where there is one.
    """

    model: str = "mp20"
    steps: int = 25
    tau: float = 1 / 12
    p_independent: float = 0.3
    device: str = "auto"

    def train(self, session: Session) -> BestSeen:
        """Spend the budget, and return what draws.

        Raises:
            KeyboardInterrupt: if the run is ended from outside.
        """
        task, oracle = session.task, session.oracle
        model, chains, idle = load_model(self.model, self.device), None, 0
        for part in range(10 * self.steps):
            if oracle.spent or idle == _PATIENCE:
                break
            config = MCMCConfig(
                chains=max(1, task.budget // (self.steps + 1)) if chains is None else len(chains),
                steps=self.steps if chains is None else 1,
                tau=self.tau * unit(task),
                p_independent=self.p_independent,
                space_group=task.constraints.get("space_group", "mp20"),
                constraints=task.options,
                floor=task.floor,
                seed=session.seed + 1000 * part,
            )
            calls = oracle.calls
            result = mcmc(model, session.score, config, initial=chains, progress=False)
            if result.interrupted:
                raise KeyboardInterrupt("the chains were ended from outside")
            chains, idle = result.crystals, 0 if oracle.calls > calls else idle + 1
        return BestSeen(session, ModelSampler(model, task))
