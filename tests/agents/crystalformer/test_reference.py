"""The network against a second one, in numpy, written from the description of the published code.

One crystal at a time, no batches, no cache, all 105 tokens: slow and plain.
"""

import numpy as np
import pytest
import torch
from scipy.special import i0e, log_softmax, logsumexp
from scipy.stats import norm

from agents import CrystalFormer, CrystalFormerConfig
from agents.crystalformer.tokens import normalised_lattice
from crystal_env import CrystalBatch, tables
from crystal_env.wyckoff import N_SLOTS

SIZES = [
    CrystalFormerConfig(n_layers=2, n_heads=3, key_size=8, model_size=16, embed_size=4, n_frequencies=3),
    CrystalFormerConfig(n_layers=1, n_heads=2, key_size=4, model_size=12, first_letter_size=0, coordinate_components=3),
]


class Reference:
    def __init__(self, model):
        self.config = model.config
        self.p = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}

    def linear(self, name, x):
        return x @ self.p[f"{name}.weight"].T + self.p[f"{name}.bias"]

    def norm(self, name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    @staticmethod
    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def tokens(self, G, W, A, XYZ):
        g, rows = self.p["group_embedding.weight"][G], []
        for w, a, xyz in zip(W, A, XYZ, strict=True):
            multiplicity = [float(tables().multiplicity[G, w])]
            rows.append(self.linear("letter_input", np.r_[g, self.p["letter_embedding.weight"][w], multiplicity]))
            rows.append(self.linear("element_input", np.r_[g, self.p["element_embedding.weight"][a]]))
            for axis, x in enumerate(xyz):
                waves = [
                    f(2 * np.pi * k * x) for k in range(1, self.config.n_frequencies + 1) for f in (np.sin, np.cos)
                ]
                rows.append(self.linear(f"coordinate_inputs.{axis}", np.r_[g, waves]))
        return np.array(rows)

    def rotate(self, x):
        half = self.config.key_size // 2
        angle = np.arange(len(x))[:, None] * 10_000.0 ** (-np.arange(half) / half)
        turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angle)
        return np.concatenate([turned.real, turned.imag], axis=1)

    def attention(self, name, x):
        q, k, v = np.split(self.linear(f"{name}.qkv", x), 3, axis=1)
        heads = []
        for h in range(self.config.n_heads):
            part = slice(h * self.config.key_size, (h + 1) * self.config.key_size)
            scores = self.rotate(q[:, part]) @ self.rotate(k[:, part]).T / np.sqrt(self.config.key_size)
            scores[np.triu_indices(len(x), 1)] = -np.inf
            heads.append(np.exp(log_softmax(scores, axis=1)) @ v[:, part])
        return self.linear(f"{name}.out", np.concatenate(heads, axis=1))

    def outputs(self, G, W, A, XYZ):
        """Return the output (106, O), of which row 0 is the first letter's."""
        h = self.tokens(G, W, A, XYZ)
        for layer in range(self.config.n_layers):
            block = f"blocks.{layer}"
            h = h + self.attention(f"{block}.attention", self.norm(f"{block}.attention_norm", h))
            inner = self.gelu(self.linear(f"{block}.feed_forward.0", self.norm(f"{block}.feed_forward_norm", h)))
            h = h + self.linear(f"{block}.feed_forward.2", inner)
        out = self.linear("head", self.norm("final_norm", h))
        if self.config.first_letter_size:
            hidden = self.gelu(self.linear("first_letter.0", self.p["group_embedding.weight"][G]))
            first = self.linear("first_letter.2", hidden)
        else:
            first = self.p["first_letter.weight"][G]
        return np.vstack([np.pad(first, (0, out.shape[1] - len(first))), out])

    def paper_log_prob(self, G, W, A, XYZ, L):
        T, c = tables(), self.config
        out, n = self.outputs(G, W, A, XYZ), np.count_nonzero(W)
        letters = elements = coordinates = lattice = 0.0
        for i in range(n + 1):
            allowed = T.next_letter[G, W[i - 1] if i else 0]
            letters += log_softmax(np.where(allowed, out[5 * i, :28], -np.inf))[W[i]]
        for i in range(n):
            elements += log_softmax(out[5 * i + 1, 1:119])[A[i] - 1]
            for axis in np.flatnonzero(T.projection[G, W[i], :, :3].any(1)):
                logits, location, kappa = np.split(out[5 * i + 2 + axis, : 3 * c.coordinate_components], 3)
                kappa = np.log1p(np.exp(kappa))
                density = kappa * (np.cos(2 * np.pi * (XYZ[i, axis] - 0.5) - location) - 1) - np.log(
                    2 * np.pi * i0e(kappa)
                )
                coordinates += logsumexp(log_softmax(logits) + density)
        K = c.lattice_components
        logits, mean, width = np.split(out[5 * n + 1, 119 : 119 + 13 * K], [K, 7 * K])
        mean, width = mean.reshape(K, 6), np.log1p(np.exp(width)).reshape(K, 6) + 1e-3
        for j in np.flatnonzero(T.free_lattice[G]):
            lattice += logsumexp(log_softmax(logits) + norm.logpdf(L[j], mean[:, j], width[:, j]))
        return letters, elements, coordinates, lattice


@pytest.fixture(params=SIZES, ids=["small network for the first letter", "table for it"])
def model(request):
    model = CrystalFormer(request.param, seed=3).double()
    with torch.no_grad():
        for parameter in model.parameters():  # new weights are too small to tell much
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            parameter += 0.3 * noise.double()
    return model.eval()


def test_parts_of_the_paper_likelihood_equal_the_reference(model):
    crystals = model.sample(np.arange(1, 231, 7), seed=0, max_sites=6)
    expected = [
        Reference(model).paper_log_prob(G, W, A, XYZ, L)
        for G, W, A, XYZ, L in zip(
            crystals.G, crystals.W, crystals.A, crystals.XYZ, normalised_lattice(crystals), strict=True
        )
    ]
    found = model.log_prob(crystals, "paper")
    for part, values in zip(found[1:], np.transpose(expected), strict=True):
        np.testing.assert_allclose(part.detach().numpy(), values, rtol=1e-10, atol=1e-10)


def test_full_crystals_use_every_position(model):
    crystal = CrystalBatch.empty(1)
    crystal.G[:], crystal.W[:, :20], crystal.A[:, :20] = 1, 1, np.arange(1, 21)
    crystal.XYZ[:, :20], crystal.L[:] = np.random.default_rng(0).random((20, 3)), [9, 10, 11, 80, 85, 95]
    assert crystal.W.shape[1] == N_SLOTS
    expected = Reference(model).paper_log_prob(
        1, crystal.W[0], crystal.A[0], crystal.XYZ[0], normalised_lattice(crystal)[0]
    )
    np.testing.assert_allclose(
        [float(part.detach()) for part in model.log_prob(crystal, "paper")[1:]], expected, rtol=1e-10
    )
