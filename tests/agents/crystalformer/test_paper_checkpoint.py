import contextlib
import copyreg
import os
import pickle
import subprocess
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from agents import CrystalFormer, CrystalFormerConfig
from agents.crystalformer import paper_checkpoint, paper_pickle
from crystal_env import Crystal, CrystalBatch

TINY = {"key_size": 4, "coordinate_components": 3}  # what the shapes of `small()` do not tell
CRYSTALS = CrystalBatch.from_crystals(
    Crystal.from_string(text)
    for text in (
        "225-a-Na-0-0-0-b-Cl-1/2-1/2-1/2-X-5.64-5.64-5.64-90-90-90",
        "186-b-Zn-1/3-2/3-0-b-O-1/3-2/3-0.382-X-3.25-3.25-5.21-90-90-120",
    )
)
Haiku = dict[str, dict[str, Any]]


def haiku_parameters(
    layers: int, heads: int, key: int, model: int, embed: int, h0: int, frequencies: int, output: int
) -> Haiku:
    """Random parameters under the names and in the shapes that the parity files' README gives."""
    rng = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.1, shape).astype(np.float32)

    parameters: Haiku = {
        "~": {"g_embeddings": array(230, embed), "w_embeddings": array(28, embed), "a_embeddings": array(119, embed)}
    }
    linears = [(embed, h0), (h0, 28)] if h0 else []
    if not h0:
        parameters["~"]["w_params"] = array(230, 28)
    linears += [(2 * embed + 1, model), (2 * embed, model)] + 3 * [(embed + 2 * frequencies, model)]
    linears += layers * [(model, 4 * model), (4 * model, model)] + [(model, output)]
    for number, (before, after) in enumerate(linears):
        parameters["linear" + f"_{number}" * (number > 0)] = {"w": array(before, after), "b": array(after)}
    for number in range(2 * layers + 1):
        parameters["layer_norm" + f"_{number}" * (number > 0)] = {"scale": array(model), "offset": array(model)}
    for layer in range(layers):
        attention = "multi_head_attention" + f"_{layer}" * (layer > 0)
        for part in ("query", "key", "value"):
            parameters[f"{attention}/{part}"] = {"w": array(model, heads * key), "b": array(heads * key)}
        parameters[f"{attention}/linear"] = {"w": array(heads * key, model), "b": array(model)}
    return parameters


def small(h0: int = 6) -> Haiku:
    return haiku_parameters(layers=2, heads=2, key=4, model=8, embed=4, h0=h0, frequencies=2, output=119 + 13)


def direct(parameters: Haiku) -> CrystalFormer:
    """The network of parameters that were never in a file."""
    config = paper_checkpoint.infer_config(parameters, **TINY)
    model = CrystalFormer(config).eval()
    model.load_state_dict(paper_checkpoint.convert(parameters, config))
    return model


class JaxArray:
    """Pickles as a jax array does."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __reduce__(self) -> tuple[Any, ...]:
        function, args, state = self.array.__reduce__()
        return sys.modules["jax._src.array"]._reconstruct_array, (function, args, state, {"weak_type": False})


class FlatMapping:
    """Pickles as an immutable dict of haiku does."""

    def __init__(self, mapping: dict[str, Any]) -> None:
        self.mapping = mapping

    def __reduce__(self) -> tuple[Any, ...]:
        return FlatMapping, (self.mapping,)


class ScaleByAdamState(NamedTuple):
    count: Any
    mu: Any
    nu: Any


class EmptyState(NamedTuple):
    pass


def _reconstruct_array(function: Any, args: Any, array_state: Any, aval_state: Any) -> None:
    raise AssertionError("jax is not there when the file is read")


ELSEWHERE = {
    "jax._src.array": _reconstruct_array,
    "haiku._src.data_structures": FlatMapping,
    "optax._src.transform": ScaleByAdamState,
    "optax._src.base": EmptyState,
}


@pytest.fixture
def write(tmp_path, monkeypatch) -> Callable[..., Path]:
    """A function that pickles content where jax, haiku and optax are installed, and returns the file."""

    def dump(content: object, protocol: int = pickle.DEFAULT_PROTOCOL) -> Path:
        with monkeypatch.context() as patch:
            for module in ELSEWHERE:
                for end in (i for i, letter in enumerate(module + ".") if letter == "."):
                    patch.setitem(sys.modules, module[:end], types.ModuleType(module[:end]))
            for module, thing in ELSEWHERE.items():
                setattr(sys.modules[module], thing.__name__, thing)
                patch.setattr(thing, "__module__", module)
            (tmp_path / "epoch_1.pkl").write_bytes(pickle.dumps(content, protocol))
        return tmp_path / "epoch_1.pkl"

    return dump


def tree_map(function: Callable[[np.ndarray], Any], parameters: Haiku) -> Haiku:
    return {module: {name: function(a) for name, a in arrays.items()} for module, arrays in parameters.items()}


def beside_optimiser(parameters: Any) -> dict[str, Any]:
    """What the paper's code saves."""
    moments = tree_map(JaxArray, small())
    adam = ScaleByAdamState(JaxArray(np.array(3, np.int32)), moments, FlatMapping(moments))
    return {"params": parameters, "opt_state": (EmptyState(), (adam, EmptyState(), np.float32(0.5), [None, True]))}


KINDS = {
    "numpy": lambda parameters: parameters,
    "jax": lambda parameters: tree_map(JaxArray, parameters),
    "numpy beside an optimiser": beside_optimiser,
    "jax beside an optimiser": lambda parameters: beside_optimiser(tree_map(JaxArray, parameters)),
    "haiku's dict": lambda parameters: {"params": FlatMapping(tree_map(JaxArray, parameters))},
    "ordered dict": lambda parameters: OrderedDict(tree_map(JaxArray, parameters)),
    "Fortran order": lambda parameters: tree_map(np.asfortranarray, parameters),
    "other byte order": lambda parameters: tree_map(lambda array: array.astype(">f4"), parameters),
    "double precision": lambda parameters: tree_map(lambda array: array.astype(np.float64), parameters),
}


class TestReading:
    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    @pytest.mark.parametrize("kind", KINDS)
    def test_arrays_are_those_that_were_written(self, write, kind, protocol):
        parameters = small()
        read = paper_pickle.read_pickle(write(KINDS[kind](parameters), protocol))
        assert read.keys() == parameters.keys()
        for module, arrays in parameters.items():
            assert read[module].keys() == arrays.keys()
            for name, array in arrays.items():
                np.testing.assert_array_equal(read[module][name], array)
                assert read[module][name].dtype.isnative

    @pytest.mark.parametrize("h0", [6, 0])
    def test_log_likelihoods_are_those_of_the_parameters(self, write, h0):
        file = write(beside_optimiser(tree_map(JaxArray, small(h0))))
        model = CrystalFormer.from_pretrained(file, **TINY)
        assert not model.training
        for likelihood in ("paper", "exact"):
            ours, expected = (net.log_prob(CRYSTALS, likelihood).total for net in (model, direct(small(h0))))
            assert torch.equal(ours, expected)
            assert expected.isfinite().all()

    def test_a_model_can_be_saved_in_our_format(self, write, tmp_path):
        CrystalFormer.from_pretrained(write(small()), **TINY).save_pretrained(tmp_path / "ours")
        ours = CrystalFormer.from_pretrained(tmp_path / "ours").log_prob(CRYSTALS).total
        assert torch.equal(ours, direct(small()).log_prob(CRYSTALS).total)


class TestSizes:
    def test_those_of_the_paper_need_no_help(self, write):
        paper = haiku_parameters(
            layers=16, heads=16, key=64, model=64, embed=32, h0=256, frequencies=5, output=119 + 13 * 4
        )
        assert sum(array.size for arrays in paper.values() for array in arrays.values()) == 4_833_575
        model = CrystalFormer.from_pretrained(write(paper))
        assert model.config == CrystalFormerConfig()
        assert model.n_parameters == 4_833_575

    @pytest.mark.parametrize("known", [{"key_size": 4}, {"n_heads": 2}, {"n_heads": 2, "key_size": 4}])
    def test_heads_follow_from_number_or_width(self, known):
        config = paper_checkpoint.infer_config(small(), **known)
        assert (config.n_heads, config.key_size) == (2, 4)

    @pytest.mark.parametrize("h0", [6, 0])
    def test_shapes_tell_the_rest(self, h0):
        assert paper_checkpoint.infer_config(small(h0), **TINY) == CrystalFormerConfig(
            n_layers=2,
            n_heads=2,
            key_size=4,
            model_size=8,
            embed_size=4,
            first_letter_size=h0,
            n_frequencies=2,
            coordinate_components=3,
            lattice_components=1,
        )

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ({}, "0 heads of width 64 do not make 8: give key_size or n_heads"),
            ({"key_size": 3}, "2 heads of width 3 do not make 8"),
            ({"n_heads": 3}, "3 heads of width 2 do not make 8"),
            ({"n_heads": 9}, "9 heads of width 0 do not make 8"),
            ({"n_heads": 4, "key_size": 4}, "4 heads of width 4 do not make 8"),
            ({"n_heads": 0}, "n_heads must be a positive integer, got 0"),
            ({"key_size": 4.0}, "key_size must be a positive integer, got 4.0"),
            ({"key_size": 4, "heads": 2}, r"sizes must be fields of CrystalFormerConfig, got \['heads'\]"),
            ({"key_size": 4, "coordinate_components": 0}, "coordinate_components must be"),
            ({"key_size": 4, "coordinate_components": 99}, "has 132 outputs, but 297 follow"),
            ({"key_size": 4, "n_layers": 3}, "lacks the parameter multi_head_attention_2/query/w"),
            ({"key_size": 4, "n_layers": 1}, "has .* parameters of no use"),
        ],
    )
    def test_sizes_that_do_not_fit(self, write, sizes, message):
        with pytest.raises(ValueError, match=rf"epoch_1\.pkl is no CrystalFormer of these sizes: .*{message}"):
            CrystalFormer.from_pretrained(write(small()), **sizes)

    @pytest.mark.parametrize(
        ("module", "name"),
        [("~", "g_embeddings"), ("linear_3", "w"), ("layer_norm", "scale"), ("multi_head_attention_1/key", "b")],
    )
    def test_a_missing_parameter_is_named(self, write, module, name):
        parameters = small()
        del parameters[module][name]
        with pytest.raises(ValueError, match=rf"epoch_1\.pkl .* lacks the parameter {module}/{name}"):
            CrystalFormer.from_pretrained(write(parameters), **TINY)

    def test_a_parameter_of_no_use_is_named(self, write):
        parameters = small() | {"classifier": {"b": np.zeros(3, np.float32)}}
        with pytest.raises(ValueError, match=r"epoch_1\.pkl .* has 1 parameters of no use, such as classifier/b"):
            CrystalFormer.from_pretrained(write(parameters), **TINY)

    @pytest.mark.parametrize(
        ("module", "name", "shape", "message"),
        [
            ("~", "g_embeddings", (), "~/g_embeddings must have 2 axes"),
            ("~", "g_embeddings", (230,), "~/g_embeddings must have 2 axes"),
            ("~", "g_embeddings", (231, 4), r"group_embedding\.weight of shape \(232, 4\)"),
            ("linear_3", "b", (8, 1), "linear_3/b must have 1 axes"),
            ("linear_3", "b", (9,), r"element_input\.bias of shape \(9,\)"),
            ("multi_head_attention/key", "w", (8, 9), "multi_head_attention/value differ in shape"),
            ("multi_head_attention/query", "w", (8, 0), "heads"),
        ],
    )
    def test_an_impossible_shape_is_named(self, write, module, name, shape, message):
        parameters = small()
        parameters[module][name] = np.zeros(shape, np.float32)
        with pytest.raises(ValueError, match=rf"epoch_1\.pkl .*{message}"):
            CrystalFormer.from_pretrained(write(parameters), **TINY)

    def test_numbers_that_are_not_finite_are_found(self, write):
        parameters = small()
        parameters["linear_3"]["b"][2] = np.nan
        with pytest.raises(ValueError, match=r"epoch_1\.pkl .* element_input\.bias that are not finite"):
            CrystalFormer.from_pretrained(write(parameters), **TINY)


class TestForeignFiles:
    @pytest.mark.parametrize(
        "content",
        [
            [],
            {},
            None,
            "text",
            [np.zeros(3)],
            {"a": "b"},
            {"a": 1.0},
            {"a": {"b": 1.0}},
            {"a": {"b": np.float32(1.0)}},
            {"a": {"b": np.arange(3)}},
            {"a": {3: np.zeros(3)}},
            {3: {"b": np.zeros(3)}},
            {"params": [np.zeros(3)]},
            {"params": {}},
            {"a": {"b": np.array(["text"])}},
            {"a": {"b": np.array([None])}},
            {"a": {"b": np.zeros(3, [("x", "f4")])}},
            {"a": {"b": np.zeros(3, complex)}},
            {"a": {"b": {"c": np.zeros(3)}}},
            {"params": EmptyState()},
            EmptyState(),
        ],
        ids=lambda content: str(content)[:40],
    )
    def test_other_pickles(self, write, content):
        with pytest.raises(ValueError, match=r"epoch_1\.pkl is no checkpoint of the paper's code: "):
            CrystalFormer.from_pretrained(write(content))

    @pytest.mark.parametrize("content", [b"", b"\n", b"lattice,sites\n1,2\n", b"\x80\x09.", b"PK\x03\x04", bytes(100)])
    def test_other_files(self, tmp_path, content):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ValueError, match=r"/file is no checkpoint of the paper's code: \w+"):
            CrystalFormer.from_pretrained(tmp_path / "file")

    @pytest.mark.parametrize("protocol", [2, 4, 5])
    def test_truncated_files(self, write, protocol):
        file = write(tree_map(JaxArray, small()), protocol)
        content = file.read_bytes()
        for kept in (1, 10, len(content) // 2, len(content) - 1):
            file.write_bytes(content[:kept])
            with pytest.raises(ValueError, match=r"epoch_1\.pkl is no checkpoint of the paper's code: \w+"):
                CrystalFormer.from_pretrained(file, **TINY)

    @pytest.mark.parametrize("protocol", [2, 4, 5])
    def test_damaged_files_are_read_or_refused(self, write, protocol):
        file = write({"params": {"~": {"b": JaxArray(np.ones(3))}}, "opt_state": EmptyState()}, protocol)
        content, rng = file.read_bytes(), np.random.default_rng(0)
        for _ in range(300):
            damaged = bytearray(content)
            for place in rng.integers(0, len(content), rng.integers(1, 4)):
                damaged[place] = rng.integers(256)
            file.write_bytes(damaged)
            with contextlib.suppress(ValueError):  # and nothing else
                paper_pickle.read_pickle(file)


class Call:
    """Pickles as a call, which is made when the file is read."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def global_(module: str, name: str) -> bytes:
    """The opcodes that look a name up."""
    return b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93"


def text(string: str) -> bytes:
    return b"X" + len(string).to_bytes(4, "little") + string.encode()


def call(module: str, name: str, *args: bytes) -> bytes:
    """A pickle that calls something with arguments, each given by its opcodes."""
    return b"\x80\x04" + global_(module, name) + b"(" + b"".join(args) + b"tR."


# Each makes a file of the given name when an unguarded unpickler reads it.
ATTACKS: dict[str, Callable[[str], bytes]] = {
    "os.system": lambda marker: pickle.dumps(Call(os.system, f"touch {marker}")),
    "eval": lambda marker: pickle.dumps(Call(eval, f"open({marker!r}, 'w').close()")),
    "exec": lambda marker: pickle.dumps(Call(exec, f"open({marker!r}, 'w').close()")),
    "subprocess": lambda marker: pickle.dumps(Call(subprocess.check_call, ["touch", marker])),
    "open": lambda marker: pickle.dumps(Call(open, marker, "w")),
    "a method": lambda marker: pickle.dumps(Call(Path.touch, Path(marker))),
    "protocol 0": lambda marker: pickle.dumps(Call(os.system, f"touch {marker}"), 0),
    "inside the parameters": lambda marker: pickle.dumps({"params": {"~": {"b": Call(os.system, f"touch {marker}")}}}),
    "as a key": lambda marker: pickle.dumps({Call(os.system, f"touch {marker}"): np.zeros(3)}),
    "INST": lambda marker: f"(S'touch {marker}'\nios\nsystem\n.".encode(),
    "OBJ": lambda marker: f"(cos\nsystem\nS'touch {marker}'\no.".encode(),
    "memo": lambda marker: (
        b"\x80\x04"
        + text("os")
        + b"\x94"
        + text("system")
        + b"\x940h\x00h\x01\x93"
        + text(f"touch {marker}")
        + b"\x85R."
    ),
    "a function of numpy": lambda marker: pickle.dumps(Call(np.savetxt, marker, [1.0])),
    "a module inside numpy": lambda marker: call("numpy.testing._private.utils", "os.system", text(f"touch {marker}")),
    "a module inside ours": lambda marker: call(
        "agents.crystalformer.checkpoint", "os.system", text(f"touch {marker}")
    ),
}

F4 = global_("numpy", "dtype") + text("f4") + b"\x89\x88\x87R"
ARRAY = global_("numpy._core.multiarray", "_reconstruct")
NDARRAY = global_("numpy", "ndarray")

# Things that are allowed, in uses that are not.
ABUSES: dict[str, bytes] = {
    "the reader's own names": call("agents.crystalformer.paper_checkpoint", "pickle.sys.exit"),
    "another name of numpy": call("numpy", "fromfile", text("/etc/passwd")),
    "numpy.load": call("numpy", "load", text("/etc/passwd")),
    "a dotted name": call("numpy", "core.multiarray._reconstruct.__globals__"),
    "a dotted name of a stand-in": call("numpy", "ndarray.__init__.__globals__"),
    "dotted names behind a known module": call("numpy._core.multiarray", "_reconstruct.__globals__"),
    "getattr": call("builtins", "getattr", NDARRAY, text("__init__")),
    "object arrays": b"\x80\x04" + NDARRAY + b"K\x02\x85" + text("O") + b"\x86R.",
    "objects as a dtype": call("numpy", "dtype", text("O8"), b"\x89\x88"),
    "a class as a dtype": call("numpy", "dtype", NDARRAY),
    "a structure as a dtype": call("numpy", "dtype", b"](" + text("a") + text("O") + b"\x86e"),
    "a dtype without a code": b"\x80\x04" + global_("numpy", "dtype") + b")\x81(K\x03" + text("<") + b"tb.",
    "a dtype with no sensible state": b"\x80\x04" + F4 + b"K\x03b.",
    "arrays of shells": call(
        "numpy._core.numeric", "_frombuffer", b"C\x04aaaa", global_("jax", "x"), b"K\x01\x85", text("C")
    ),
    "arrays of a shape too large": call(
        "numpy._core.numeric", "_frombuffer", b"C\x04aaaa", F4, b"\x8a\x08" + b"\xff" * 7 + b"\x0f\x85", text("C")
    ),
    "arrays of a text": call("numpy._core.numeric", "_frombuffer", text("aaaa"), F4, b"K\x01\x85", text("C")),
    "jax arrays made by dict": call(
        "jax._src.array", "_reconstruct_array", global_("builtins", "dict"), b")", b"}", b"}"
    ),
    "jax arrays made by a shell": call("jax._src.array", "_reconstruct_array", global_("jax", "x"), b")", b"}", b"}"),
    "jax arrays without a state": call("jax._src.array", "_reconstruct_array", ARRAY, b")", b"N", b"}"),
    "another encoding": call("_codecs", "encode", text("abc"), text("rot13")),
    "another codec": call("_codecs", "decode", text("abc"), text("latin1")),
    "attributes of a class": b"\x80\x04" + NDARRAY + b"}" + text("value") + b"K\x01sb.",
    "attributes of a function": b"\x80\x04" + global_("jax", "_reconstruct_array") + b"}" + text("x") + b"K\x01sb.",
    "slots of a class": b"\x80\x04" + NDARRAY + b"N}" + text("value") + b"K\x01s\x86b.",
    "slots of a shell's class": b"\x80\x04" + global_("optax", "x") + b"N}" + text("x") + b"K\x01s\x86b.",
    "attributes of dict": b"\x80\x04" + global_("builtins", "dict") + b"}" + text("x") + b"K\x01sb.",
    "attributes of an ordered dict": b"\x80\x04"
    + global_("collections", "OrderedDict")
    + b")R}"
    + text("x")
    + b"K\x01sb.",
    "state of a jax function's class": b"\x80\x04" + global_("jax", "_reconstruct_array") + b")\x81}b.",
    "a persistent id": b"Pid\n.",
    "a binary persistent id": text("id") + b"Q.",
    "a buffer outside the file": b"\x80\x05\x97.",
    "a registered extension": b"\x80\x02\x82\xf0.",
    "a huge memo": b"\x80\x02}r\xff\xff\xff\xff.",
}


class TestMalice:
    @pytest.mark.parametrize("name", ATTACKS)
    def test_nothing_is_run(self, tmp_path, name):
        marker, file = tmp_path / "marker", tmp_path / "epoch_1.pkl"
        file.write_bytes(ATTACKS[name](str(marker)))
        with pytest.raises(
            ValueError, match=r"epoch_1\.pkl is no checkpoint .*: it asks for \S+, and only arrays and dicts"
        ):
            CrystalFormer.from_pretrained(file)
        assert not marker.exists()

    @pytest.mark.parametrize("name", ATTACKS)
    def test_the_attacks_are_real(self, tmp_path, name):
        marker = tmp_path / "marker"
        try:
            opened = pickle.loads(ATTACKS[name](str(marker)))
        except TypeError:  # what the call returned is no key
            opened = None
        if hasattr(opened, "close"):
            opened.close()
        assert marker.exists()

    @pytest.mark.parametrize("name", ABUSES)
    def test_what_is_allowed_cannot_be_abused(self, write, tmp_path, name):
        (tmp_path / "abuse").write_bytes(ABUSES[name])
        with pytest.raises(ValueError, match=r"/abuse is no checkpoint of the paper's code: \S+"):
            paper_pickle.read_pickle(tmp_path / "abuse")
        read = paper_pickle.read_pickle(write(tree_map(JaxArray, small())))  # as well as before
        np.testing.assert_array_equal(read["linear"]["w"], small()["linear"]["w"])

    def test_extensions_that_another_pickle_has_used_are_refused(self, tmp_path):
        marker, file = tmp_path / "marker", tmp_path / "epoch_1.pkl"
        copyreg.add_extension("os", "system", 240)
        try:
            assert pickle.loads(b"\x80\x02\x82\xf0.") is os.system  # and is remembered by all unpicklers
            file.write_bytes(b"\x80\x02\x82\xf0" + text(f"touch {marker}") + b"\x85R.")
            with pytest.raises(ValueError, match="registered extension"):
                paper_pickle.read_pickle(file)
        finally:
            copyreg.remove_extension("os", "system", 240)
        assert not marker.exists()

    def test_what_bears_the_name_of_a_library_is_an_empty_shell(self, write, tmp_path):
        marker, file = tmp_path / "marker", write(small())
        touch = call("jax", "os.system", text(f"touch {marker}")).removeprefix(b"\x80\x04").removesuffix(b".")
        file.write_bytes(
            b"\x80\x04}" + text("opt_state") + touch + b"s" + text("params") + file.read_bytes()[2:-1] + b"s."
        )
        assert paper_pickle.read_pickle(file).keys() == small().keys()
        assert not marker.exists()

    def test_the_types_of_numpy_are_left_alone(self, tmp_path):
        """A dtype is one object for all; without a stand-in, this would turn the bytes of every float64 around."""
        state = b"(K\x03" + text(">") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
        f8 = global_("numpy", "dtype") + text("f8") + b"\x89\x89\x87R" + state + b"b"
        array = global_("numpy._core.numeric", "_frombuffer") + b"(C\x08" + np.array(1.5, ">f8").tobytes() + f8
        array += b"K\x01\x85" + text("C") + b"tR"
        (tmp_path / "file").write_bytes(b"\x80\x04}" + text("~") + b"}" + text("b") + array + b"ss.")
        assert paper_pickle.read_pickle(tmp_path / "file")["~"]["b"].tolist() == [1.5]
        assert np.dtype("f8").isnative
