"""SevenNet's convolution, several times as fast on a CPU as with e3nn's tensor product.

The message of an edge is, for each path from degrees l1 and l2 to l3 and each channel u,

    w[path, u] Σ_{m1, m2} C[m1, m2, m3] x[u, m1] Y[m2]

with the features x of the neighbour, the spherical harmonics Y of the edge, and weights w that depend on its length.
e3nn computes the products x Y of each path for all edges. Here C Y, which all channels share, comes first; all paths
from one l1 are a single matrix product; channels are the innermost axis; and the messages of a few edges, which stay in
the cache, are added at their atoms before the next ones are computed.
"""

from typing import Any

import sevenn._keys as key
import torch
from e3nn.o3 import wigner_3j
from torch import Tensor, nn

_CHUNK = 128  # edges whose messages are computed together on a CPU: they fit into the cache of a core


class Convolution(nn.Module):
    """The convolution of a `sevenn.nn.convolution.IrrepsConvolution`, which must not be used any more.

    Args:
        original: the convolution. Its paths are in the order of its results and of its weights.
    """

    def __init__(self, original: Any) -> None:
        super().__init__()
        product = original.convolution
        degrees: list[list[int]] = [[] for _ in product.irreps_in1]
        for row, path in enumerate(product.instructions):
            degrees[path.i_in1].append(row)
        self.degrees = nn.ModuleList(_Degree(product, rows) for rows in degrees if rows)
        self.denominator, self.weight_nn = original.denominator, original.weight_nn
        self._keys = original.key_x, original.key_filter, original.key_weight_input
        order = [row for rows in degrees for row in rows]
        self._place = sorted(range(len(order)), key=order.__getitem__)
        columns = torch.arange(product.weight_numel).split([path.path_shape[0] for path in product.instructions])
        last = self.weight_nn[-1]
        last.weight = nn.Parameter(last.weight.detach()[:, torch.cat([columns[row] for row in order])])

    def forward(self, data: Any) -> Any:
        """Replace the features of the N atoms by the sums of the messages of E edges to them."""
        x, harmonics, lengths = (data[name] for name in self._keys)
        weights = self.weight_nn(lengths).split([degree.n_weights for degree in self.degrees], 1)
        results: list[Tensor] = []
        for degree, part in zip(self.degrees, weights, strict=True):
            results += degree(x, harmonics, part, *data[key.EDGE_IDX])
        data[self._keys[0]] = torch.cat([results[place] for place in self._place], 1) / self.denominator
        return data


class _Degree(nn.Module):
    """All P paths from the features of one degree l1: u channels of d = 2 l1 + 1 components to D components.

    Args:
        product: the tensor product of e3nn.
        rows: its paths of that degree.
    """

    coupling: Tensor  # (harmonics, D d): C with the weights of the paths
    path: Tensor  # (D,): the path of each component

    def __init__(self, product: Any, rows: list[int]) -> None:
        super().__init__()
        paths, harmonics = [product.instructions[row] for row in rows], product.irreps_in2
        index = paths[0].i_in1
        self.channels, degree = product.irreps_in1[index]
        self.n_weights, self.columns = len(rows) * self.channels, product.irreps_in1.slices()[index]
        blocks = []
        for path in paths:
            l2, l3 = harmonics[path.i_in2].ir.l, product.irreps_out[path.i_out].ir.l
            block = torch.zeros(harmonics.dim, 2 * l3 + 1, degree.dim)
            block[harmonics.slices()[path.i_in2]] = path.path_weight * wigner_3j(l2, l3, degree.l)
            blocks.append(block)
        self.widths = [block.shape[1] for block in blocks]
        self.register_buffer("coupling", torch.cat(blocks, 1).flatten(1))
        self.register_buffer("path", torch.arange(len(rows)).repeat_interleave(torch.tensor(self.widths)))

    def forward(self, x: Tensor, harmonics: Tensor, weights: Tensor, center: Tensor, neighbor: Tensor) -> list[Tensor]:
        """Return for each path the sums of the messages to the atoms (N, u (2 l3 + 1))."""
        n_atoms, n_edges, u, D = len(x), len(center), self.channels, len(self.path)
        x = x[:, self.columns].view(n_atoms, u, -1).transpose(1, 2).contiguous()  # (N, d, u)
        d = x.shape[1]
        coupling = (harmonics @ self.coupling).view(n_edges, D, d)
        weights = weights.view(n_edges, len(self.widths), u)
        summed = x.new_zeros(n_atoms, D * u)
        size = _CHUNK if x.device.type == "cpu" else max(n_edges, 1)
        for start in range(0, max(n_edges, 1), size):  # once without edges, for the gradient
            chunk = slice(start, start + size)
            sources = x.index_select(0, neighbor[chunk])
            messages = coupling[chunk] * sources if d == 1 else torch.bmm(coupling[chunk], sources)  # (chunk, D, u)
            scale = weights[chunk].index_select(1, self.path)
            messages = messages * scale if torch.is_grad_enabled() else messages.mul_(scale)
            summed.index_add_(0, center[chunk], messages.flatten(1))
        parts = summed.view(n_atoms, D, u).split(self.widths, 1)
        return [part.transpose(1, 2).flatten(1) for part in parts]
