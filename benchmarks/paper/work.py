"""Models, crystals and scores that several figures share, computed with their first use and kept on disk.

Every file is named by what it was made from, so figures with other settings may use the same folder, and an interrupted
command resumes where it stopped: crystals are kept in chunks, energies one by one, trainings with their state.
"""

import json
import os
from collections.abc import Callable
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from agents import CrystalFormer, FinetuneConfig, TrainConfig, finetune
from agents.crystalformer.config import GroupChoice
from agents.crystalformer.temperature import Temperatures
from agents.klppo.config import PRESETS, RUN_PRESETS
from benchmarks.metrics.properties import energies_above_hull
from benchmarks.paper.published import DIELECTRIC_GROUP, TAU, TAU_FOM
from benchmarks.paper.settings import Settings
from benchmarks.provenance import chgnet_digest, file_digest
from crystal_env.crystal import CrystalBatch
from crystal_env.dataset import load_crystals
from crystal_env.reward import Reward, RewardResult, resolve_reward
from rewards import SUN, Cached, DielectricFoM, EnergyAboveHull, load_potential
from rewards.matching import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crystal_env.crystal import Crystal

CHUNK = 50
"""Crystals that are sampled together and kept in one file."""

SHIPPED_HULL = "mp20-chgnet"
"""The hull where the data folder has no file for one."""

_TARGET = "diel_total_target"


class PaperEnergy(EnergyAboveHull):
    """Minus the energy above the hull, by Orb-v2 with the Materials Project's corrections where its weights are given.

    The term ``clipped`` is the energy above the hull clipped to ±10 eV/atom, 10 for a failed crystal; its mean is the
    paper's Fig. 2(a). The other terms are those of `rewards.EnergyAboveHull`.

    Args:
        hull: see `rewards.EnergyAboveHull`.
        weights: checkpoint of Orb-v2; without one CHGNet is used.
    """

    def __init__(self, hull: str, weights: str | None = None) -> None:
        potential = load_potential("chgnet") if weights is None else load_potential("orb-v2+MP2020", weights=weights)
        super().__init__(potential, hull)

    def __call__(self, crystals: "CrystalBatch | Iterable[Crystal]") -> RewardResult:
        """Score B crystals."""
        total, terms, failures = super().__call__(crystals)
        return RewardResult(total, {**terms, "clipped": -total}, failures)


class PaperSUN(SUN):
    """`rewards.SUN` of the energies of another reward, by default `PaperEnergy`, against a training set.

    Args:
        training: file of the crystals that are known.
        energy: the reward with the term ``e_above_hull``, as ``"module:attribute"``.
        energy_kwargs: its arguments.
    """

    def __init__(self, training: str, energy: str, energy_kwargs: dict[str, Any]) -> None:
        super().__init__(reference=training, energy=resolve_reward(energy, energy_kwargs))


class Work:
    """The shared computations of some settings.

    Args:
        settings: sizes, models and folders.
        energy: a reward with the term ``e_above_hull``, by default `PaperEnergy`.
        fom: a reward with the terms ``band_gap`` and ``dielectric_constant``, by default `rewards.DielectricFoM`.

    Attributes:
        used: name -> SHA-256 of the models and files that have been used so far.
    """

    def __init__(self, settings: Settings, energy: Reward | None = None, fom: Reward | None = None) -> None:
        self.settings, self.folder = settings, settings.cache_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._energy, self._fom = energy, fom
        self.used: dict[str, str] = {}
        self._models: dict[str, CrystalFormer] = {}
        self._digests: dict[str, str] = {}

    @cached_property
    def hull(self) -> str:
        """Name or file of the hull; that of formation energies is built with the first use."""
        if self.settings.hull is not None:
            return self.settings.hull
        files = self.settings.hull_files()
        if files is None:
            return SHIPPED_HULL
        path = self.folder / f"hull-{_digest([file_digest(file) for file in files])}.npz"
        if not path.is_file():
            from rewards.cli import hull_build

            fresh = path.with_name(f"{path.stem}.{os.getpid()}.npz")
            hull_build((files[0],), fresh, source="formation-energies", elements=files[1])
            fresh.replace(path)
        return str(path)

    @cached_property
    def energy_reward(self) -> dict[str, Any]:
        """Name and arguments of the reward for stability, as the settings of a training have them."""
        orb = self.settings.orb_file()
        kwargs = {"hull": self.hull, **({} if orb is None else {"weights": str(orb)})}
        return {"reward": "benchmarks.paper.work:PaperEnergy", "reward_kwargs": kwargs}

    @cached_property
    def sun_reward(self) -> dict[str, Any]:
        """Name and arguments of the reward of S.U.N. crystals, with the same energies."""
        energy = {"energy": self.energy_reward["reward"], "energy_kwargs": self.energy_reward["reward_kwargs"]}
        kwargs = {"training": str(self.settings.training_file()), **energy}
        return {"reward": "benchmarks.paper.work:PaperSUN", "reward_kwargs": kwargs}

    @cached_property
    def fom_models(self) -> dict[str, Any]:
        """Arguments of `rewards.DielectricFoM`; the model of the dielectric constant is trained with the first use."""
        dielectric, limit = (
            self.settings.dielectric_model or self.dielectric_run() / "model",
            self.settings.max_dielectric,
        )
        models = {"dielectric_model": str(dielectric), "gap_model": self.settings.gap()}
        return models if limit is None else {**models, "max_dielectric": limit}

    @cached_property
    def fom_names(self) -> tuple[str, ...]:
        """Names of the models that are fine-tuned on the figure of merit: one at least."""
        return tuple(run.name for run in self.settings.runs) or ("fom",)

    @cached_property
    def training(self) -> Reference:
        """The training set, against which novelty is measured."""
        file = self.settings.training_file()
        self.used[file.name] = file_digest(file)
        return Reference(load_crystals(file, n_jobs=self.settings.n_jobs).crystals)

    @cached_property
    def labelled(self) -> Reference:
        """The crystals with a total dielectric constant in the data."""
        from rewards.property_training.data import load_property_data

        structures, targets = self.settings.dielectric_data()
        self.used[targets.name] = file_digest(targets)
        return Reference(load_property_data(structures, (_TARGET,), targets).crystals)

    @cached_property
    def groups(self) -> GroupChoice:
        """Space groups as the training set has them: ``"mp20"``, or 230 weights where the settings name another one."""
        if self.settings.training is None:
            return "mp20"
        return tuple(np.bincount(self.training.crystals.G, minlength=231)[1:].astype(float).tolist())

    def model(self, name: str) -> CrystalFormer:
        """Return a model by its name: ``"mp20"``, ``"base"``, a run of the settings, or one trained with the first use.

        ``"rl"`` is fine-tuned by reinforcement on the energy above the hull, or on S.U.N. with the preset ``best``;
        ``"sft"`` by likelihood on its own stable crystals; ``"fom"`` by reinforcement on the figure of merit in space
        group 225. ``"base_sharp"`` is the base model, for samples at the temperature of ``"rl"``.
        """
        if name not in self._models:
            source: dict[str, Any] = {"mp20": lambda: "mp20", "base": lambda: self.settings.base}
            source |= {"base_sharp": source["base"]}
            source |= {"rl": self.rl_run, "fom": self.fom_run, "sft": self.sft_run}
            source |= {run.name: lambda run=run: run for run in self.settings.runs}
            path = source[name]()
            self._models[name] = CrystalFormer.from_pretrained(path / "model" if isinstance(path, Path) else path)
        return self._models[name]

    def temperature(self, name: str) -> Temperatures:
        """Return the temperature at which a model is sampled; see the settings."""
        if self.settings.temperature is not None:
            return Temperatures.of(self.settings.temperature)
        if name in ("mp20", "base", "sft"):
            return Temperatures()
        return self.model("rl" if name == "base_sharp" else name).temperature

    @property
    def rl_models(self) -> tuple[str, ...]:
        """The models that reinforcement is compared by: before, before at the temperature of after, and after."""
        is_sharper = self.temperature("rl") != self.temperature("base")
        return ("base", "base_sharp", "rl") if is_sharper else ("base", "rl")

    def digest(self, name: str) -> str:
        """Return the SHA-256 of the weights of a model."""
        if name not in self._digests:
            digest = sha256()
            for key, weight in self.model(name).state_dict().items():
                digest.update(key.encode() + weight.cpu().numpy().tobytes())
            self._digests[name] = self.used[f"model {name}"] = digest.hexdigest()
        return self._digests[name]

    def crystals(self, name: str, size: int, space_group: int | None = None, progress: bool = True) -> CrystalBatch:
        """Return samples of a model, in one space group or, by default, in those of the training set.

        The first of a larger number are those of a smaller one.
        """
        seed, temperature, parts = self.settings.seed, self.temperature(name), []
        groups = self.groups if space_group is None else space_group
        kind = _digest(groups) if isinstance(groups, tuple) else groups
        sharp = "" if temperature.are_one else f"-{_digest(temperature.to_dict())}"
        folder = self.folder / "crystals" / f"{self.digest(name)[:16]}-{kind}-{seed}{sharp}"
        folder.mkdir(parents=True, exist_ok=True)
        what = f"{name}: sampling" if space_group is None else f"{name}: sampling space group {space_group}"
        with tqdm(total=size, desc=what, unit="crystal", disable=not progress) as bar:
            for chunk in range(-(-size // CHUNK)):
                path = folder / f"{chunk}.npz"
                if not path.is_file():
                    rng = np.random.default_rng([seed, chunk])
                    fresh = folder / f".{chunk}.{os.getpid()}.npz"
                    self.model(name).sample(groups, CHUNK, seed=rng, temperature=temperature).save(fresh)
                    fresh.replace(path)
                parts.append(CrystalBatch.load(path))
                bar.update(min(CHUNK, size - chunk * CHUNK))
        return CrystalBatch.concatenate(parts)[:size]

    def energies(self, crystals: CrystalBatch, name: str) -> NDArray[np.float64]:
        """Return energies above the hull (B,) in eV/atom, NaN where a crystal could not be scored.

        Args:
            crystals: B crystals.
            name: of them, for the progress bar.
        """
        return energies_above_hull(crystals, self._cached_energy, name)

    def figures_of_merit(self, crystals: CrystalBatch, name: str) -> RewardResult:
        """Return band gaps, total dielectric constants and figures of merit of B crystals, as the paper's reward.

        Args:
            crystals: B crystals.
            name: of them, for the progress bar.
        """
        parts = [np.arange(start, min(start + CHUNK, len(crystals))) for start in range(0, len(crystals), CHUNK)]
        results = [
            self._cached_fom(crystals[rows]) for rows in tqdm(parts, desc=f"{name}: figure of merit", unit="batch")
        ]
        return RewardResult.concatenate(results, floor=0.0, names=tuple(results[0].terms) if results else ())

    def rl_run(self) -> Path:
        """Return the folder of reinforcement on the energy above the hull, or with the preset ``best`` on S.U.N."""
        reward = {**self.energy_reward, "tau": TAU} if self.settings.preset == "paper" else self.sun_reward
        return self._reinforced("rl", {**reward, "space_group": self.groups})

    def fom_run(self) -> Path:
        """Return the folder of reinforcement on the figure of merit: Table S1, at the settings' size."""
        reward = {"reward": "rewards:DielectricFoM", "reward_kwargs": self.fom_models, "floor": 0.0}
        return self._reinforced("fom", {**reward, "space_group": DIELECTRIC_GROUP, "tau": TAU_FOM})

    def sft_run(self) -> Path:
        """Return the folder of supervised fine-tuning: appendix A, at the settings' size."""
        options: dict[str, Any] = {**self.energy_reward, "space_group": self.groups}
        options |= {"samples": self.settings.sft_samples}
        if self.settings.sft_relax:
            options["relax"] = "rewards.relaxation.relax:Relaxation"
        run = self._folder_of("sft", options)
        return self._once(run, lambda: finetune(FinetuneConfig(run=run, **self._common(), **options)))

    def dielectric_run(self) -> Path:
        """Return the folder of the training of the dielectric constant: appendix D, for at most so many epochs.

        The learning rate is ten times the paper's, for a tenth of the data and of the epochs.
        """
        from rewards.property_training.train import PropertyConfig, train_property

        structures, targets = self.settings.dielectric_data()
        options: dict[str, Any] = {"target": (_TARGET,), "epochs": self.settings.epochs, "learning_rate": 1e-3}
        options |= {"structures": structures, "targets_file": targets, "seed": self.settings.seed}
        run = self.folder / "runs" / f"dielectric-{_digest(options)}"
        resume = (run / "checkpoint.pt").is_file()
        if not resume:
            (run / "log.csv").unlink(missing_ok=True)
        return self._once(run, lambda: train_property(PropertyConfig(run=run, resume=resume, **options)))

    @cached_property
    def _cached_energy(self) -> Reward:
        if self._energy is not None:
            return self._energy
        orb, hull = self.settings.orb_file(), Path(self.hull)
        hashes = {"CHGNet": chgnet_digest()} if orb is None else {orb.name: file_digest(orb)}
        hashes[hull.name] = file_digest(hull) if hull.is_file() else "shipped with rewards"
        self.used |= hashes
        return self._kept(PaperEnergy(**self.energy_reward["reward_kwargs"]), hashes)

    @cached_property
    def _cached_fom(self) -> Reward:
        if self._fom is not None:
            return self._fom
        folders = (self.fom_models[name] for name in ("dielectric_model", "gap_model"))
        files = [file for folder in folders for file in sorted(Path(folder).glob("*.pt"))]
        hashes = {f"{file.parent.name}/{file.name}": file_digest(file) for file in files}
        self.used |= hashes
        return self._kept(DielectricFoM(**self.fom_models), {**self.fom_models, "hashes": hashes})

    def _kept(self, reward: Reward, about: dict[str, Any]) -> Cached:
        """Return a reward with a cache on disk, keyed by exact equality: chunks are read again as they were written."""
        name = f"{type(reward).__name__} {_digest(about)}"
        return Cached(reward, path=self.folder / f"{name.replace(' ', '-')}.sqlite", name=name, key="exact")

    def _reinforced(self, kind: str, options: dict[str, Any]) -> Path:
        """Return the folder of a training with the settings' preset, all iterations of one size."""
        from agents.klppo.run import train

        preset = self.settings.preset
        options |= {"iterations": self.settings.iterations, "batch_size": self.settings.batch_size, "samples": 0}
        options |= {"learning_starts": 0}
        run = self._folder_of(kind, {**PRESETS[preset], **RUN_PRESETS[preset], **options})
        config = TrainConfig.from_preset(preset, run=run, **self._common(), **options)
        return self._once(run, lambda: train(config))

    def _common(self) -> dict[str, Any]:
        settings = self.settings
        return {"model": settings.base, "seed": settings.seed, "resume": True, "checkpoint_minutes": 0.5}

    def _folder_of(self, kind: str, options: dict[str, Any]) -> Path:
        about = {**options, "base": self.digest("base"), "seed": self.settings.seed}
        return self.folder / "runs" / f"{kind}-{_digest(about)}"

    def _once(self, run: Path, train: Callable[[], object]) -> Path:
        """Train unless an earlier training has finished, and return the folder."""
        if not (run / "finished").is_file():
            run.mkdir(parents=True, exist_ok=True)
            print(f"training in {run}")
            train()
            (run / "finished").touch()
        return run


def _digest(about: Any) -> str:
    return sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:12]
