"""A grammar whose crystals can all be listed, and what is exactly true of a policy on it."""

import itertools
from functools import cache

import gymnasium as gym
import numpy as np
import torch

import crystal_env  # noqa: F401  registers the environment
from agents import CrystalFormer, CrystalFormerConfig
from crystal_env.crystal import Crystal, CrystalBatch
from crystal_env.encoding import denormalise
from crystal_env.vocabulary import N_SYMBOLS, Phase, Vocabulary
from crystal_env.wyckoff import tables

BINS = 24
LETTERS = {221: ([1], [2], [1, 2]), 225: ([1], [2], [3], [1, 2])}
GROUPS = tuple(LETTERS)
ELEMENTS = (3, 9, 17)
CONSTRAINTS = {"elements": list(ELEMENTS), "max_sites": 2, "max_atoms": 2}
CONFIG = CrystalFormerConfig(
    n_layers=1, n_heads=2, key_size=8, model_size=16, embed_size=8, first_letter_size=16, n_frequencies=2,
    coordinate_components=2, lattice_components=2, dropout=0.0, attention_dropout=0.0,
)  # fmt: skip


def base_model(seed=0, factor=8.0):
    """Return a small model in double precision whose distributions are far from uniform."""
    model = CrystalFormer(CONFIG, seed).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor if parameter.dim() > 1 else 1.0)
    return model


@cache
def every_crystal() -> CrystalBatch:
    """Return all crystals: the letters of at most two atoms, three elements, 24 lengths, in two cubic groups."""
    unit = Vocabulary(BINS).normalised[Phase.A, N_SYMBOLS : N_SYMBOLS + BINS]
    crystals = []
    for G, W in ((group, letters) for group in GROUPS for letters in LETTERS[group]):
        n_atoms = tables().multiplicity[G, W].sum()
        lengths = denormalise(unit, np.full(BINS, int(Phase.A)), np.full(BINS, n_atoms))
        xyz = tables().projection[G, W, :, 3]
        for A, a in itertools.product(itertools.product(ELEMENTS, repeat=len(W)), lengths):
            crystals.append(Crystal(G, W, list(A), xyz, [a, a, a, 90, 90, 90]))
    return CrystalBatch.from_crystals(crystals)


def every_symbol() -> CrystalBatch:
    """Return one crystal for each choice of group, letters and elements."""
    return every_crystal()[::BINS]


def probabilities(model, temperature=1.0, top_p=1.0):
    """Return the probabilities of all crystals, the groups being equally likely; they add up to 1."""
    options = {"bins": BINS, "temperature": temperature, "top_p": top_p, **CONSTRAINTS}
    with torch.no_grad():
        log_p = model.log_prob(every_crystal(), **options).total.double().numpy()
    return np.exp(log_p) / len(GROUPS)


def symbol_probabilities(model, temperature=1.0):
    """Return the probabilities of all groups, letters and elements, whatever the lattice; they add up to 1."""
    with torch.no_grad():
        log_p = model.log_prob(every_symbol(), bins=BINS, temperature=temperature, **CONSTRAINTS)
    return np.exp((log_p.letters + log_p.elements).double().numpy()) / len(GROUPS)


def reward(crystals):
    """A reward that depends on group, letters and elements in no simple way, between 0 and 1."""
    code = crystals.G * 1.7 + (crystals.A * (crystals.W + 2.3)).sum(1) + 0.37 * (crystals.A**2).sum(1)
    return np.sin(code) / 2 + 0.5


def optimum(base, rewards, tau, crystals=None):
    """Return the probabilities of Eq. 2 for crystals, by default all, and the value tau ln Z of the objective."""
    p, value = base * np.exp(rewards / tau), 0.0
    for G in GROUPS:
        rows = (every_crystal() if crystals is None else crystals).G == G
        value += tau * np.log(p[rows].sum() * len(GROUPS)) / len(GROUPS)
        p[rows] /= p[rows].sum() * len(GROUPS)
    return p, value


def divergence(p, q):
    """Return the Kullback-Leibler divergence of two lists of probabilities."""
    seen = p > 1e-300
    return float((p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-300))).sum())


def environment(num_envs=4, **options):
    options = {"bins": BINS, "space_group": list(GROUPS), "reward": reward, **CONSTRAINTS, **options}
    return gym.make_vec("CrystalGen-v0", num_envs=num_envs, **options)
