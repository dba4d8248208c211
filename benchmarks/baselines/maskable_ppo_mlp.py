"""MaskablePPO with an MLP, from scratch: reinforcement learning without knowledge of known crystals."""

from dataclasses import dataclass

from sb3_contrib import MaskablePPO

from agents import TokenFeatures
from benchmarks.baselines.masked_ppo import learn
from benchmarks.harness.session import Session


@dataclass(frozen=True)
class MaskablePPOMLP:
    """sb3-contrib's MaskablePPO on embedded tokens, with two hidden layers each for policy and value.

    The environment is the coarse one: with 48 bins there are 194 ids instead of 1,106.

    Attributes:
        bins: Numeric bins of the environment.
        num_envs: Episodes in parallel.
        n_steps: Decisions of each environment between updates.
        batch_size: Decisions in an optimiser step.
        n_epochs: Passes over the decisions of an update.
        learning_rate: Adam learning rate.
        gamma: Discount factor.
        ent_coef: Entropy coefficient.
        embed_size: Length of a token embedding.
        hidden: Sizes of the hidden layers.
        device: Device such as ``"cuda"``; small networks are fastest on the CPU.
    """

    bins: int = 48
    num_envs: int = 64
    n_steps: int = 64
    batch_size: int = 512
    n_epochs: int = 4
    learning_rate: float = 3e-4
    gamma: float = 1.0
    ent_coef: float = 0.01
    embed_size: int = 8
    hidden: tuple[int, ...] = (128, 128)
    device: str = "cpu"

    def train(self, session: Session) -> MaskablePPO:
        """Spend the budget and return the trained agent."""
        return learn(
            session,
            self.bins,
            self.num_envs,
            lambda env: MaskablePPO(
                "MlpPolicy",
                env,
                n_steps=self.n_steps,
                batch_size=self.batch_size,
                n_epochs=self.n_epochs,
                learning_rate=self.learning_rate,
                gamma=self.gamma,
                ent_coef=self.ent_coef,
                policy_kwargs={
                    "features_extractor_class": TokenFeatures,
                    "features_extractor_kwargs": {"size": self.embed_size},
                    "net_arch": list(self.hidden),
                },
                seed=session.seed,
                device=self.device,
            ),
        )
