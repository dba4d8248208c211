"""PPO that clips the ratio of each decision, as for language models, instead of that of the whole crystal."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.baselines.klppo_paper import KLPPOPaper


@dataclass(frozen=True)
class TokenPPO(KLPPOPaper):
    """`KLPPOPaper` but for the ratio: what the paper's choice of the whole crystal is to be compared with.

    Every decision of a crystal has the same advantage (Schulman et al., arXiv:1707.06347, with returns of whole
    episodes and no value network).
    """

    ratio: Literal["sequence", "token"] = "token"
