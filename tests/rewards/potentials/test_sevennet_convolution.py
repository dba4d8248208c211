"""The convolution of SevenNet against the original, with e3nn's tensor product."""

import pytest

pytest.importorskip("sevenn")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("n_edges", [0, 1, 300])
def test_results_and_gradients_are_those_of_the_original(n_edges):
    import sevenn._keys as key
    import torch
    from e3nn.o3 import Irreps
    from sevenn.nn.convolution import IrrepsConvolution

    from rewards.potentials.sevennet_convolution import Convolution

    generator = torch.Generator().manual_seed(0)
    features, harmonics = Irreps("8x0e+4x1e+2x2e+3x3e"), Irreps("0e+1e+2e+3e")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        original = IrrepsConvolution(
            features, harmonics, Irreps("8x0e+4x1e+2x2e"), [5, 7], denominator=3.0, lazy_layer_instantiate=False
        )
    n_atoms = 6
    inputs = [
        torch.randn(shape, generator=generator, requires_grad=True)
        for shape in ((n_atoms, features.dim), (n_edges, harmonics.dim), (n_edges, 5))
    ]
    edges = torch.randint(n_atoms, (2, n_edges), generator=generator)
    names = (key.NODE_FEATURE, key.EDGE_ATTR, key.EDGE_EMBEDDING)
    results = []
    for kind in (lambda convolution: convolution, Convolution):  # the second takes the weights of the first
        convolution = kind(original)
        found = convolution(dict(zip(names, inputs, strict=True)) | {key.EDGE_IDX: edges})[key.NODE_FEATURE]
        results.append((found, *torch.autograd.grad((found**2).sum(), inputs)))
        with torch.no_grad():
            again = convolution(dict(zip(names, inputs, strict=True)) | {key.EDGE_IDX: edges})[key.NODE_FEATURE]
        torch.testing.assert_close(again, found, atol=1e-5, rtol=1e-5)
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
