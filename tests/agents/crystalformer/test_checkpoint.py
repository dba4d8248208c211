import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from agents import CrystalFormer, CrystalFormerConfig
from agents.crystalformer import checkpoint

TINY = CrystalFormerConfig(
    n_layers=1,
    n_heads=2,
    key_size=4,
    model_size=8,
    embed_size=4,
    first_letter_size=6,
    n_frequencies=2,
    coordinate_components=3,
    lattice_components=2,
    dropout=0.3,
)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A saved model."""
    CrystalFormer(TINY, seed=1).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change_config(folder: Path, **entries: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def change_weights(folder: Path, changes: dict[str, torch.Tensor | None]) -> None:
    """Replace tensors, or remove those that are None."""
    state = load_file(folder / "model.safetensors") | changes
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, folder / "model.safetensors")


def assert_same(first: CrystalFormer, second: CrystalFormer) -> None:
    assert first.config == second.config
    states = first.state_dict(), second.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


class TestRoundTrip:
    @pytest.mark.parametrize("first_letter_size", [6, 0])
    def test_a_model_comes_back_as_it_was(self, tmp_path, first_letter_size):
        config = CrystalFormerConfig(**(TINY.to_dict() | {"first_letter_size": first_letter_size}))
        model = CrystalFormer(config, seed=1)
        model.save_pretrained(tmp_path)
        assert_same(CrystalFormer.from_pretrained(tmp_path), model)
        assert_same(CrystalFormer.from_pretrained(str(tmp_path)), model)

    def test_it_is_ready_for_use(self, folder):
        model = CrystalFormer.from_pretrained(folder)
        assert not model.training
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert model.device.type == "cpu"

    def test_the_default_precision_is_that_of_torch(self, folder):
        torch.set_default_dtype(torch.float64)
        try:
            model = CrystalFormer.from_pretrained(folder)
        finally:
            torch.set_default_dtype(torch.float32)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
        assert torch.equal(model.head.weight.float(), CrystalFormer.from_pretrained(folder).head.weight)

    def test_half_precision_is_kept_exactly(self, tmp_path):
        model = CrystalFormer(TINY).bfloat16()
        model.save_pretrained(tmp_path)
        assert torch.equal(CrystalFormer.from_pretrained(tmp_path).head.weight, model.head.weight.float())

    def test_a_folder_is_made_and_holds_two_files(self, tmp_path):
        CrystalFormer(TINY).save_pretrained(tmp_path / "some" / "where")
        names = sorted(file.name for file in (tmp_path / "some" / "where").iterdir())
        assert names == ["config.json", "model.safetensors"]

    def test_a_model_can_be_saved_over_another(self, folder):
        model = CrystalFormer(CrystalFormerConfig(**(TINY.to_dict() | {"n_layers": 2})), seed=2)
        model.save_pretrained(folder)
        assert_same(CrystalFormer.from_pretrained(folder), model)

    def test_loading_and_saving_leave_the_global_generator_alone(self, folder):
        state = torch.get_rng_state()
        CrystalFormer.from_pretrained(folder).save_pretrained(folder)
        assert torch.equal(torch.get_rng_state(), state)


class TestInterruptedSave:
    @pytest.mark.parametrize(
        "where", ["agents.crystalformer.checkpoint.save_file", "pathlib.Path.write_text", "pathlib.Path.replace"]
    )
    def test_the_old_model_stays(self, folder, monkeypatch, where):
        old = CrystalFormer.from_pretrained(folder)

        def full(*args: object, **kwargs: object) -> None:
            raise OSError("no space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(where, full)
            with pytest.raises(OSError, match="no space left"):
                CrystalFormer(TINY, seed=2).save_pretrained(folder)
        assert_same(CrystalFormer.from_pretrained(folder), old)
        assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]

    def test_half_written_weights_do_not_replace_the_old_ones(self, folder, monkeypatch):
        old = CrystalFormer.from_pretrained(folder)

        def half(state: object, path: Path, **kwargs: object) -> None:
            path.write_bytes(b"half")
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save_file", half)
            with pytest.raises(KeyboardInterrupt):
                CrystalFormer(TINY, seed=2).save_pretrained(folder)
        assert_same(CrystalFormer.from_pretrained(folder), old)


class TestNames:
    def test_a_name_is_a_model_that_ships(self, folder, monkeypatch):
        monkeypatch.setattr(checkpoint, "MODELS", folder.parent)
        assert_same(CrystalFormer.from_pretrained("model"), CrystalFormer.from_pretrained(folder))

    def test_a_folder_can_be_relative(self, folder, monkeypatch):
        monkeypatch.chdir(folder)
        for path in (".", Path(), "../model"):
            assert_same(CrystalFormer.from_pretrained(path), CrystalFormer(TINY, seed=1))

    def test_unknown_names_tell_the_known_ones(self, folder, monkeypatch):
        monkeypatch.setattr(checkpoint, "MODELS", folder.parent)
        with pytest.raises(ValueError, match=r"no model 'mp21': .* ship with the package, \['model'\]"):
            CrystalFormer.from_pretrained("mp21")

    def test_nothing_ships(self, tmp_path, monkeypatch):
        monkeypatch.setattr(checkpoint, "MODELS", tmp_path / "missing")
        with pytest.raises(ValueError, match=r"no model 'mp20'.* \[\]"):
            CrystalFormer.from_pretrained("mp20")

    def test_a_folder_that_does_not_exist(self, tmp_path):
        with pytest.raises(ValueError, match=r"no model '.*/missing': neither a folder, nor a file"):
            CrystalFormer.from_pretrained(tmp_path / "missing")

    def test_a_folder_has_its_own_sizes(self, folder):
        with pytest.raises(ValueError, match=r"has its own sizes in config\.json, got \['key_size'\]"):
            CrystalFormer.from_pretrained(folder, key_size=4)


class TestDamage:
    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_a_file_is_missing(self, folder, name):
        (folder / name).unlink()
        with pytest.raises(ValueError, match=f"model is no model: it lacks {name}"):
            CrystalFormer.from_pretrained(folder)

    @pytest.mark.parametrize("kept", [0, 4, 100, -1])
    def test_truncated_weights(self, folder, kept):
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:kept])
        with pytest.raises(ValueError, match=r"model\.safetensors is truncated or no safetensors file"):
            CrystalFormer.from_pretrained(folder)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"n_layers": 1}', "\xff"])
    def test_a_config_that_is_none(self, folder, text):
        (folder / "config.json").write_text(text, encoding="latin1")
        with pytest.raises(ValueError, match=r"config\.json is no configuration of a model"):
            CrystalFormer.from_pretrained(folder)

    @pytest.mark.parametrize(
        ("entries", "message"),
        [
            ({"format": "crystalformer-2"}, "format is not 'crystalformer-1'"),
            ({"n_layer": 1}, "n_layer"),
            ({"n_layers": 1.5}, "n_layers must be an integer"),
            ({"dropout": 2}, "dropout must be a number"),
        ],
    )
    def test_a_config_with_wrong_entries(self, folder, entries, message):
        change_config(folder, **entries)
        with pytest.raises(ValueError, match=rf"config\.json is no configuration of a model: .*{message}"):
            CrystalFormer.from_pretrained(folder)

    def test_weights_of_another_configuration(self, folder):
        change_config(folder, n_layers=2)
        with pytest.raises(ValueError, match=r"do not fit .*lacks blocks\.1\.attention\.out\.bias.*, and \d+ more"):
            CrystalFormer.from_pretrained(folder)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"head.bias": None}, "lacks head.bias"),
            ({"tail.bias": torch.zeros(3)}, "has the unknown tail.bias"),
            ({"head.bias": torch.zeros(3)}, r"has head.bias of shape \(3,\) instead of \(145,\)"),
            ({"head.bias": torch.full((145,), torch.nan)}, "has values in head.bias that are not finite"),
            ({"head.bias": torch.full((145,), torch.inf)}, "has values in head.bias that are not finite"),
        ],
    )
    def test_a_wrong_tensor(self, folder, changes, message):
        change_weights(folder, changes)
        with pytest.raises(ValueError, match=f"model do not fit their configuration: the file {message}"):
            CrystalFormer.from_pretrained(folder)
