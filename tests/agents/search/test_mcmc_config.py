import pytest

from agents.search.mcmc_config import MCMCConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [({"chains": 0}, "chains"), ({"tau": 0.0}, "tau"), ({"tau_start": -1.0}, "tau_start"), ({"moves": "x"}, "moves"),
     ({"p_independent": 2.0}, "p_independent"), ({"lattice_scale": 0.0}, "lattice_scale"), ({"thin": 0}, "thin")],
)  # fmt: skip
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        MCMCConfig(**options)


def test_the_temperature_falls_geometrically_to_tau():
    config = MCMCConfig(tau=0.01, tau_start=1.0, anneal_steps=20)
    assert [config.temperature(step) for step in (0, 10, 20, 500)] == pytest.approx([1.0, 0.1, 0.01, 0.01])
    assert MCMCConfig(tau=0.3).temperature(0) == 0.3
