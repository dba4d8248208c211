"""The progress bar of learning."""

from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm


class ProgressBar(BaseCallback):
    """Counts the iterations or decisions of `KLPPO.learn`, whichever its length is given in."""

    def _on_training_start(self) -> None:
        self._name, unit = ("iteration", "it") if self.locals["n_iterations"] else ("num_timesteps", "decision")
        self._bar = tqdm(total=self.locals["length"], initial=getattr(self.model, self._name), unit=unit)

    def _on_step(self) -> bool:
        self._update(self._name == "iteration")  # the iteration is over but for its update
        return True

    def _on_training_end(self) -> None:
        self._update(0)
        self._bar.close()

    def _update(self, ahead: int) -> None:
        self._bar.update(getattr(self.model, self._name) + ahead - self._bar.n)
