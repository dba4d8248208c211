"""Against the paper's own code: what it computes in double precision, see the README of the parity files."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from agents.crystalformer import paper_checkpoint
from agents.crystalformer.model import CrystalFormer
from agents.crystalformer.network import Outputs
from agents.crystalformer.tokens import Tokens
from agents.klppo.losses import published_surrogate
from crystal_env import CrystalBatch
from crystal_env.encoding import ANGLE_BOUNDS, LENGTH_BOUNDS, gamma_bounds
from crystal_env.wyckoff import N_GROUPS, tables

N_SITES = 21  # slots of the paper's code, all of which may hold a site there
PARTS = {"letters": "w", "elements": "a", "coordinates": "xyz", "lattice": "l"}
FILES = ["parity_tiny_wide", "parity_tiny_h0table_wide"]


class Reference(NamedTuple):
    """What the paper's code computes, the same network in ours, and how far they may be apart."""

    data: dict[str, np.ndarray]
    model: CrystalFormer
    tolerance: float

    def parameters(self, kind: str) -> dict[str, dict[str, np.ndarray]]:
        """Haiku's dict of dicts: of parameters, or of gradients with respect to them."""
        modules: dict[str, dict[str, np.ndarray]] = {}
        for key in self.data:
            if key.startswith(kind + "/"):
                module, name = key.removeprefix(kind + "/").rsplit("/", 1)
                modules.setdefault(module, {})[name] = self.data[key].astype(np.float64)
        return modules

    def crystals(self) -> CrystalBatch:
        G, W, L = self.data["G"], self.data["W"], self.data["L"].copy()
        L[:, :3] *= np.cbrt(tables().multiplicity[G[:, None], W].sum(1, keepdims=True))
        L[:, 3:] = np.degrees(L[:, 3:])
        return CrystalBatch(G, W, self.data["A"], self.data["XYZ"], L)


@pytest.fixture(scope="module", params=[(file, table) for file in FILES for table in ("exact", "theirs")], ids="-".join)
def reference(request, parity_folder) -> Reference:
    """Theirs are rotary tables in single precision: with them, and nothing else, ours must be equal."""
    file, table = request.param
    with np.load(parity_folder / f"{file}.npz") as archive:
        data = dict(archive)
    torch.set_default_dtype(torch.float64)
    try:
        blank = Reference(data, None, 0)
        sizes = {"key_size": int(data["cfg/key_size"]), "coordinate_components": int(data["cfg/Kx"])}
        config = paper_checkpoint.infer_config(blank.parameters("param"), **sizes)
        model = CrystalFormer(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    model.load_state_dict(paper_checkpoint.convert(blank.parameters("param"), config))
    if table == "theirs":
        with np.load(parity_folder / "rope_tables.npz") as archive:
            theirs = np.stack([archive[f"{name}_{config.key_size}"] for name in ("cos", "sin")])
        model.rotary[:, : theirs.shape[1]] = torch.from_numpy(theirs)
    return Reference(data, model, 1e-5 if table == "exact" else 1e-11)


def test_sizes_are_inferred(reference):
    config = reference.model.config
    sizes = ("num_layers", "num_heads", "key_size", "model_size", "embed_size", "h0_size", "Nf", "Kx", "Kl")
    sizes += ("dropout_rate", "attn_dropout")
    assert list(config.to_dict().values()) == [reference.data[f"cfg/{name}"].item() for name in sizes]


def test_forward_pass(reference):
    tokens = every_slot(reference.data)
    with torch.no_grad():
        ours = rows_of_outputs(reference.model(tokens), tokens)
    theirs = reference.data["h"]
    assert ours.shape == theirs.shape
    forbidden = np.isinf(ours)
    np.testing.assert_array_equal(forbidden, theirs < -1e9)
    np.testing.assert_allclose(ours[~forbidden], theirs[~forbidden], rtol=0, atol=reference.tolerance)


@pytest.mark.parametrize("part", PARTS)
def test_log_likelihood(reference, part):
    with torch.no_grad():
        ours = getattr(reference.model.log_prob(reference.crystals(), "paper"), part)
    theirs = reference.data[f"logp_{PARTS[part]}"]
    assert reference.data["full"].any()  # a crystal of 21 sites is among them
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=reference.tolerance)


def test_loss_and_gradients(reference):
    model, data = reference.model, reference.data
    model.zero_grad()
    loss = -model.log_prob(reference.crystals()[data["grad_rows"]], "paper").total.mean()
    loss.backward()
    assert loss.item() == pytest.approx(data["grad_loss_value"].item(), abs=reference.tolerance, rel=0)
    theirs = paper_checkpoint.convert(reference.parameters("grad_loss"), model.config)
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        error = (ours[name] - gradient).abs().max() / max(1, gradient.abs().max())
        assert error < reference.tolerance, name


def test_published_update(reference):
    """Objective and gradient of reinforcement as the published code has them."""
    model, data = reference.model, reference.data
    old, base, advantages = (
        torch.from_numpy(data[f"ppo_{name}"]) for name in ("old_logp", "pretrain_logp", "advantages")
    )
    eps, beta = data["ppo_eps_clip"].item(), data["ppo_beta"].item()
    model.zero_grad()
    log_p = model.log_prob(reference.crystals(), "paper").total
    objective = published_surrogate(log_p, old, base, advantages, eps, beta).mean()
    objective.backward()
    assert objective.item() == pytest.approx(data["ppo_objective"].item(), abs=10 * reference.tolerance, rel=0)
    assert (log_p.detach() - base).mean().item() == pytest.approx(data["ppo_kl"].item(), abs=reference.tolerance, rel=0)
    if theirs := reference.parameters("grad_ppo"):  # one of the files has it
        theirs = paper_checkpoint.convert(theirs, model.config)
        for name, parameter in model.named_parameters():
            error = (parameter.grad - theirs[name]).abs().max() / max(1, theirs[name].abs().max())
            assert error < 10 * reference.tolerance, name


def test_mean_loss_of_all_crystals(reference):
    with torch.no_grad():
        log_p = reference.model.log_prob(reference.crystals(), "paper")
    for part, letter in (*PARTS.items(), ("total", "")):
        theirs = reference.data[f"loss_{letter}".rstrip("_")].item()
        assert -getattr(log_p, part).mean().item() == pytest.approx(theirs, abs=reference.tolerance, rel=0), part


def test_single_precision_is_enough(reference):
    single = CrystalFormer(reference.model.config).eval()
    single.load_state_dict(reference.model.state_dict())
    with torch.no_grad():
        log_p = single.log_prob(reference.crystals(), "paper")
    for part, letter in PARTS.items():
        theirs = reference.data[f"logp_{letter}"]
        np.testing.assert_allclose(getattr(log_p, part).numpy(), theirs, rtol=1e-6, atol=3e-5)


def test_greedy_decoding(reference):
    data, groups = reference.data, np.arange(1, N_GROUPS + 1)
    ours = reference.model.sample(groups, temperature=0)
    W, A, XYZ = (data[f"greedy/{name}"] for name in ("W", "A", "XYZ"))
    np.testing.assert_array_equal(data["greedy/G"], groups)
    np.testing.assert_array_equal(ours.W[:, :-1], W[:, :-1])
    np.testing.assert_array_equal(ours.A[:, :-1], A[:, :-1])
    apart = np.abs(ours.XYZ[:, :-1] - XYZ[:, :-1])
    tolerance = 10 * reference.tolerance  # what is decoded is fed back
    assert np.minimum(apart, 1 - apart).max() < tolerance

    ends = W[:, -1] == 0  # ours end at 20 sites, theirs may have 21
    assert (ours.W[:, -1] == 0).all()
    assert 10 < ends.sum() < N_GROUPS
    expected = within_bounds(data["greedy/L"], groups, data["greedy/M"].sum(1))
    np.testing.assert_allclose(ours.L[ends], expected[ends], rtol=tolerance)


def every_slot(data: dict[str, np.ndarray]) -> Tokens:
    """The crystals in 22 slots, so that all decisions after 21 sites have an output."""
    W, A = (torch.from_numpy(np.pad(data[name], [(0, 0), (0, 1)])) for name in ("W", "A"))
    XYZ = torch.from_numpy(np.pad(data["XYZ"].astype(np.float64), [(0, 0), (0, 1), (0, 0)]))
    return Tokens(torch.from_numpy(data["G"]), W, A, XYZ, torch.from_numpy(data["L"]))


def rows_of_outputs(outputs: Outputs, tokens: Tokens) -> np.ndarray:
    """Mask and normalise outputs, and write them as the paper's code does, (B, 106, O), -inf where it forbids."""
    G, W = tokens.G, tokens.W
    width = outputs.elements.shape[-1] + outputs.lattice.shape[-1]
    rows = torch.zeros(len(G), 5 * N_SITES + 1, width, dtype=torch.float64)
    rows[:, 0::5, :28] = outputs.letters.masked_fill(~letters_that_follow(G, W), -torch.inf).log_softmax(-1)

    is_pad = (torch.arange(119) == 0) == (W[:, :-1, None] > 0)  # what a site may not be, and what else a pad may not be
    rows[:, 1::5, :119] = outputs.elements[:, :-1].masked_fill(is_pad, -torch.inf).log_softmax(-1)
    logits, means, widths = outputs.lattice[:, :-1].split([n := outputs.lattice.shape[-1] // 13, 6 * n, 6 * n], dim=-1)
    rows[:, 1::5, 119:] = torch.cat([logits.log_softmax(-1), means, softplus(widths) + 1e-3], dim=-1)

    logits, locations, concentrations = outputs.coordinates.chunk(3, dim=-1)
    mixtures = torch.cat([logits.log_softmax(-1), locations, softplus(concentrations)], dim=-1)
    for axis in range(3):
        rows[:, 2 + axis :: 5, : mixtures.shape[-1]] = mixtures[:, :, axis]
    return rows.numpy()


def letters_that_follow(G: Tensor, W: Tensor) -> Tensor:
    """The rule of the paper's code (B, 22, 28): ascending, no repeats without a free coordinate, pads after a pad."""
    letter, last = torch.arange(28), torch.from_numpy(tables().n_letters)[G][:, None, None]
    is_fixed = torch.from_numpy(tables().rank == 0)[G[:, None], W[:, :-1], None]
    before = W[:, :-1, None]
    rises = (letter > before) | ((letter == before) & ~is_fixed)
    following = torch.where(before == 0, letter == 0, (letter == 0) | (rises & (letter <= last)))
    first = ((letter > 0) & (letter <= last)).expand(-1, 1, -1)
    return torch.cat([first, following], dim=1)


def softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros(()))


def within_bounds(L: np.ndarray, groups: np.ndarray, n_atoms: np.ndarray) -> np.ndarray:
    """Lattices with their free parameters clipped to the environment's bounds."""
    free = tables().free_lattice[groups]
    clipped = np.where(free, np.concatenate([L[:, :3], np.clip(L[:, 3:], *ANGLE_BOUNDS)], axis=1), L)
    scale = np.cbrt(n_atoms)[:, None]
    clipped[:, :3] = np.clip(L[:, :3], LENGTH_BOUNDS[0] * scale, LENGTH_BOUNDS[1] * scale)
    gamma = np.flatnonzero(free[:, 5])
    bounds = gamma_bounds(clipped[gamma, 3], clipped[gamma, 4])
    clipped[gamma, 5] = np.clip(L[gamma, 5], bounds[:, 0], bounds[:, 1])
    return clipped
