"""Files of the `adapters` library: read and written without a bit changed, and refused in one sentence."""

import json
import os
import pickle
import shutil
import warnings
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import get_peft_model
from safetensors.torch import load_file, save_file

from studykit.tuners import PRESETS, BottleneckConfig, FusionConfig, fusion_members, record_fusion
from studykit.tuners.adapterhub.files import (
    load_adapter,
    load_fusion,
    load_setup,
    save_adapter,
    save_fusion,
    save_setup,
)
from studykit.tuners.adapterhub.format import reduction_factor
from studykit.tuners.bottleneck import bottleneck_width
from tests.tuners.golden import ORIGINALS, QWEN2
from tests.tuners.models import randomise, tiny, tokens

ADAPTER, FUSION = "adapter.safetensors", "model_adapter_fusion.safetensors"
JSON, FUSION_JSON = "adapter_config.json", "adapter_fusion_config.json"
BIN = {ADAPTER: "pytorch_adapter.bin", FUSION: "pytorch_model_adapter_fusion.bin"}

pytestmark = pytest.mark.filterwarnings("ignore:.*the files of a head.*:UserWarning")


def cases(names):
    sets = [QWEN2, *ORIGINALS]
    return [pytest.param(golden, name, id=f"{golden.name}-{name}") for golden in sets for name in names(golden)]


def copied(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def edit(path: Path, **changes) -> None:
    """Sets fields of a JSON file: its own, or else those of its nested `config`."""
    given = json.loads(path.read_text())
    for field, value in changes.items():
        (given["config"] if field not in given and isinstance(given["config"], dict) else given)[field] = value
    path.write_text(json.dumps(given))


def edit_tensors(path: Path, change) -> None:
    """Renames tensors by a function of their names, None to drop."""
    save_file({change(key): tensor for key, tensor in load_file(path).items() if change(key)}, path)


def as_bin(directory: Path, file: str) -> None:
    """The same tensors in the library's pickled form, instead."""
    torch.save(load_file(directory / file), directory / BIN[file])
    (directory / file).unlink()


def read(directory: Path, file: str) -> dict[str, torch.Tensor]:
    if (directory / file).exists():
        return load_file(directory / file)
    return torch.load(directory / BIN[file], weights_only=True)


def assert_same_files(written: Path, original: Path, file: str, config: str) -> None:
    ours, theirs = read(written, file), read(original, file)
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert ours[key].dtype == tensor.dtype and torch.equal(ours[key], tensor), key
    assert json.loads((written / config).read_text()) == json.loads((original / config).read_text())


def composition(model) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in model.state_dict().items() if ".composition." in key}


def assert_refused(load, model, *words: str) -> None:
    """One sentence with all the words, and the model as it was."""
    before = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    held = set(getattr(model, "peft_config", ()))
    with pytest.raises(ValueError) as caught:
        load()
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message and message.endswith(".")
    assert {key: parameter.requires_grad for key, parameter in model.named_parameters()} == before
    assert set(getattr(model, "peft_config", ())) == held


# What the library wrote


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("golden, name", cases(lambda golden: golden.adapters))
def test_adapter_survives_reading_and_writing(tmp_path, golden, name, safe):
    model = load_adapter(golden.base_model(), golden.adapter_directory(name))
    assert not any(parameter.requires_grad for key, parameter in model.named_parameters() if "composition" in key)
    save_adapter(model, tmp_path / "copy", name, safe=safe)
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {JSON, ADAPTER if safe else BIN[ADAPTER]}
    assert_same_files(tmp_path / "copy", golden.adapter_directory(name), ADAPTER, JSON)


@pytest.mark.parametrize("golden, name", cases(lambda golden: golden.fusions))
def test_fusion_survives_reading_and_writing(tmp_path, golden, name):
    model = golden.model_with(fusion=name)
    save_fusion(model, tmp_path / "copy", name)
    assert_same_files(tmp_path / "copy", golden.fusion_directory(name), FUSION, FUSION_JSON)


def setup_directory(tmp_path: Path, golden=QWEN2) -> Path:
    directory = tmp_path / "setup"
    for name in "abc":
        copied(golden.adapter_directory(name), directory / name)
    copied(golden.fusion_directory("dynamic"), directory / "a,b,c")
    shutil.copy(golden.directory / "setup_fusion" / "adapter_setup.json", directory)
    return directory


@pytest.mark.parametrize("golden", [QWEN2, *ORIGINALS], ids=lambda golden: golden.name)
def test_setup_survives_reading_and_writing(tmp_path, golden):
    directory = golden.directory / "setup_fusion" if golden in ORIGINALS else setup_directory(tmp_path)
    model = load_setup(golden.base_model(), directory).eval()
    assert model.active_adapters == ["fusion"]
    expected = golden.model_with(fusion="dynamic")(**golden.inputs()).logits
    assert torch.equal(model(**golden.inputs()).logits, expected)
    save_setup(model, tmp_path / "copy", "fusion")
    for name in "abc":
        assert_same_files(tmp_path / "copy" / name, directory / name, ADAPTER, JSON)
    assert_same_files(tmp_path / "copy" / "a,b,c", directory / "a,b,c", FUSION, FUSION_JSON)
    ours, theirs = (json.loads((path / "adapter_setup.json").read_text()) for path in (tmp_path / "copy", directory))
    assert ours == theirs


@pytest.mark.parametrize("golden", ORIGINALS, ids=lambda golden: golden.name)
def test_pickles_of_the_library_read_as_its_safetensors(tmp_path, golden):
    for name in golden.adapters:
        copy = copied(golden.adapter_directory(name), tmp_path / name)
        (copy / ADAPTER).unlink()
        save_adapter(load_adapter(golden.base_model(), copy), tmp_path / "copy" / name, name)
        assert_same_files(tmp_path / "copy" / name, golden.adapter_directory(name), ADAPTER, JSON)


@pytest.mark.parametrize("golden", ORIGINALS, ids=lambda golden: golden.name)
def test_heads_of_the_library_are_ignored_with_a_word(golden):
    with pytest.warns(UserWarning, match=r"head_config.json.*are ignored"):
        load_adapter(golden.base_model(), golden.adapter_directory("a"))


def test_head_is_ignored_with_a_word_and_nothing_else_is_said(tmp_path):
    directory = copied(QWEN2.adapter_directory("a"), tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load_adapter(QWEN2.base_model(), directory)
    (directory / "head_config.json").write_text("{}")
    (directory / "model_head.safetensors").write_bytes(b"no tensors")
    with pytest.warns(UserWarning, match="model_head.safetensors.*are ignored"):
        load_adapter(QWEN2.base_model(), directory)


def test_pickle_and_missing_prefix_read_as_safetensors(tmp_path):
    model = QWEN2.base_model()
    for name in ("cpp", "cpp2"):  # with the shared rule, which stands beside the layers
        directory = copied(QWEN2.adapter_directory(name), tmp_path / name)
        edit_tensors(directory / ADAPTER, lambda key: key.removeprefix("model."))  # saved from the model without a head
        as_bin(directory, ADAPTER)
        model = load_adapter(model, directory)
    directory = copied(QWEN2.fusion_directory("compacter"), tmp_path / "fusion")
    edit_tensors(directory / FUSION, lambda key: key.removeprefix("model."))
    as_bin(directory, FUSION)
    model = load_fusion(model, directory)
    ours = {key.replace(".fusion.", ".compacter."): tensor for key, tensor in composition(model).items()}
    theirs = composition(QWEN2.model_with(fusion="compacter"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_safetensors_are_preferred(tmp_path):
    directory = copied(QWEN2.adapter_directory("a"), tmp_path / "a")
    (directory / BIN[ADAPTER]).write_bytes(b"damaged")
    load_adapter(QWEN2.base_model(), directory)


def test_adapter_takes_another_name(tmp_path):
    model = load_adapter(QWEN2.base_model(), QWEN2.adapter_directory("cpp"), "java")
    assert set(model.peft_config) == {"java"}
    save_adapter(model, tmp_path, "java")
    theirs = load_file(QWEN2.adapter_directory("cpp") / ADAPTER)
    ours = load_file(tmp_path / ADAPTER)
    assert ours.keys() == {key.replace(".cpp.", ".java.") for key in theirs}
    assert all(torch.equal(ours[key.replace(".cpp.", ".java.")], theirs[key]) for key in theirs)
    assert json.loads((tmp_path / JSON).read_text())["name"] == "java"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_written_as_read_until_it_was_trained(tmp_path, dtype):
    directory = copied(QWEN2.adapter_directory("a"), tmp_path / "a")
    save_file({key: tensor.to(dtype) for key, tensor in load_file(directory / ADAPTER).items()}, directory / ADAPTER)
    model = load_adapter(QWEN2.base_model(), directory)
    assert {tensor.dtype for tensor in composition(model).values()} == {torch.float32}
    save_adapter(model, tmp_path / "copy", "a")
    assert_same_files(tmp_path / "copy", directory, ADAPTER, JSON)
    next(p for key, p in model.named_parameters() if "composition" in key).data += 1e-5
    save_adapter(model, tmp_path / "copy", "a")
    assert {tensor.dtype for tensor in load_file(tmp_path / "copy" / ADAPTER).values()} == {torch.float32}


def test_old_fusion_names_its_members_in_its_name(tmp_path):
    directory = copied(QWEN2.fusion_directory("static"), tmp_path / "fusion")
    given = json.loads((directory / FUSION_JSON).read_text())
    del given["adapter_names"]
    given["config"] = "static"
    (directory / FUSION_JSON).write_text(json.dumps(given))
    model = load_fusion(QWEN2.model_with("a", "c"), directory, "other")
    assert model.peft_config["other"].members == ["c", "a"]
    save_fusion(model, tmp_path / "copy", "other")
    assert_same_files(tmp_path / "copy", QWEN2.fusion_directory("static"), FUSION, FUSION_JSON)


def test_fusion_with_a_name_of_its_own_keeps_it(tmp_path):
    directory = setup_directory(tmp_path)
    (directory / "a,b,c").rename(directory / "languages")
    edit_tensors(directory / "languages" / FUSION, lambda key: key.replace("a,b,c", "languages"))
    edit(directory / "languages" / FUSION_JSON, name="languages")
    save_setup(load_setup(QWEN2.base_model(), directory), tmp_path / "copy", "fusion")
    assert_same_files(tmp_path / "copy" / "languages", directory / "languages", FUSION, FUSION_JSON)
    assert not (tmp_path / "copy" / "a,b,c").exists()


def test_tensors_of_other_fusions_are_ignored(tmp_path):
    """Saving "a,b", the library writes all fusions whose names start so."""
    directory = copied(QWEN2.fusion_directory("dynamic"), tmp_path / "fusion")
    tensors = load_file(directory / FUSION)
    save_file(tensors | {k.replace("a,b,c", "a,b,c,d"): v + 1 for k, v in tensors.items()}, directory / FUSION)
    save_fusion(load_fusion(QWEN2.model_with("a", "b", "c"), directory), tmp_path / "copy", "fusion")
    assert_same_files(tmp_path / "copy", QWEN2.fusion_directory("dynamic"), FUSION, FUSION_JSON)


@pytest.mark.parametrize(
    "name, fields",
    [
        ("a", {"phm_layer": True}),
        ("cpp", {"phm_layer": False}),
        ("cpp", {"factorized_phm_W": False, "shared_phm_rule": False}),
        ("cfull", {"factorized_phm_W": True}),
        ("cfac", {"shared_phm_rule": True, "factorized_phm_rule": False}),
    ],
)
def test_tensors_are_trusted_over_the_fields_that_the_library_confuses(tmp_path, name, fields):
    directory = copied(QWEN2.adapter_directory(name), tmp_path / name)
    edit(directory / JSON, **fields)
    with pytest.warns(UserWarning, match=f"{next(iter(fields))}=.*its tensors show the opposite"):
        model = load_adapter(QWEN2.base_model(), directory)
    save_adapter(model, tmp_path / "copy", name)  # written with what is true
    assert_same_files(tmp_path / "copy", QWEN2.adapter_directory(name), ADAPTER, JSON)


@pytest.mark.parametrize(
    "field, value", [("leave_out", [2, 7]), ("phm_init_range", 0.5), ("init_weights_seed", 3), ("phm_dim", 2)]
)
def test_fields_without_effect_are_kept(tmp_path, field, value):
    directory = copied(QWEN2.adapter_directory("a"), tmp_path / "a")
    edit(directory / JSON, **{field: value})
    save_adapter(load_adapter(QWEN2.base_model(), directory), tmp_path / "copy", "a")
    assert_same_files(tmp_path / "copy", directory, ADAPTER, JSON)


def test_training_dropout_is_read_and_written(tmp_path):
    adapter = copied(QWEN2.adapter_directory("a"), tmp_path / "a")
    fusion = copied(QWEN2.fusion_directory("dynamic"), tmp_path / "fusion")
    edit(adapter / JSON, dropout=0.25)
    edit(fusion / FUSION_JSON, dropout_prob=0.5, regularization=False)
    model = load_adapter(QWEN2.model_with("b", "c"), adapter)
    model = load_fusion(model, fusion)
    assert (model.peft_config["a"].dropout, model.peft_config["fusion"].dropout) == (0.25, 0.5)
    save_adapter(model, tmp_path / "copy", "a")
    save_fusion(model, tmp_path / "copy", "fusion")
    assert_same_files(tmp_path / "copy", adapter, ADAPTER, JSON)
    assert_same_files(tmp_path / "copy", fusion, FUSION, FUSION_JSON)


# What we write

OWN = {**PRESETS, "compacter": PRESETS["compacter"] | {"reduction_factor": 4},
       "compacterpp": PRESETS["compacterpp"] | {"reduction_factor": 4},
       "full": {"phm_dim": 2, "phm_rank": None, "init": "houlsby"},
       "factored": {"phm_dim": 4, "reduction_factor": 8, "phm_rank": 2, "phm_shared_rule": False, "phm_rule_rank": 1},
       "shared": {"phm_dim": 4, "reduction_factor": 8, "phm_rule_rank": 1, "dropout": 0.1}}  # fmt: skip


@pytest.mark.parametrize("family", ["Llama", "Gemma"])
@pytest.mark.parametrize("kind", OWN)
def test_our_adapters_survive_writing_and_reading(tmp_path, family, kind):
    config = BottleneckConfig(task_type="CAUSAL_LM", **OWN[kind])
    model = get_peft_model(tiny(family), config, adapter_name="a")
    randomise(model)
    save_adapter(model, tmp_path, "a")
    again = load_adapter(tiny(family), tmp_path)
    assert asdict(again.peft_config["a"]) == asdict(model.peft_config["a"])
    ours, theirs = composition(model), composition(again)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert torch.equal(again.eval()(tokens()).logits, model.eval()(tokens()).logits)


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("kind", ["bottleneck", "houlsby"])
def test_our_fusions_survive_writing_and_reading(tmp_path, kind, value):
    config = {"task_type": "CAUSAL_LM", **PRESETS[kind]}
    model = get_peft_model(tiny(), BottleneckConfig(**config), adapter_name="a")
    model.add_adapter("b", BottleneckConfig(**config | {"reduction_factor": 8}))
    model.add_adapter("f", FusionConfig(members=["b", "a"], value=value, dropout=0.2, task_type="CAUSAL_LM"))
    model.set_adapter("f")
    randomise(model)
    save_setup(model, tmp_path, "f", safe=False)
    again = load_setup(tiny(), tmp_path, "f")
    assert asdict(again.peft_config["f"]) == asdict(model.peft_config["f"])
    assert {n for n, p in again.named_parameters() if p.requires_grad} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    with record_fusion(again) as record:
        assert torch.equal(again.eval()(tokens()).logits, model.eval()(tokens()).logits)
    site = {"bottleneck": ["output"], "houlsby": ["attention", "mlp"]}[kind]
    assert sorted(record.weights) == [(layer, name) for layer in (0, 1) for name in site]


def test_our_defaults_are_those_of_the_library(tmp_path):
    """Fields of an adapter that never was a file equal those of one that the library made in the same way."""
    hidden = {"model_name", "name", "model_class", "model_type", "hidden_size", "version"}
    for name, preset in (("a", "bottleneck"), ("h1", "houlsby"), ("p1", "parallel"), ("cpp", "compacterpp")):
        theirs = json.loads((QWEN2.adapter_directory(name) / JSON).read_text())
        fields = PRESETS[preset] | {"reduction_factor": theirs["config"]["reduction_factor"]}
        model = get_peft_model(tiny(), BottleneckConfig(task_type="CAUSAL_LM", **fields), adapter_name=name)
        save_adapter(model, tmp_path / name, name)
        ours = json.loads((tmp_path / name / JSON).read_text())
        assert ours["config"] == theirs["config"] and ours.keys() == theirs.keys() == {"config", *hidden}
    for name, value in (("dynamic", True), ("static", False)):
        theirs = json.loads((QWEN2.fusion_directory(name) / FUSION_JSON).read_text())
        model.add_adapter(name, FusionConfig(members=["cpp"], value=value, task_type="CAUSAL_LM"))
        save_fusion(model, tmp_path / name, name)
        ours = json.loads((tmp_path / name / FUSION_JSON).read_text())
        assert ours["config"] == theirs["config"] and ours.keys() == theirs.keys()


def test_width_given_as_rank_is_written_as_a_factor(tmp_path):
    model = get_peft_model(tiny(), BottleneckConfig(rank=5, task_type="CAUSAL_LM"), adapter_name="a")
    save_adapter(model, tmp_path, "a")
    assert torch.equal(load_adapter(tiny(), tmp_path).eval()(tokens()).logits, model.eval()(tokens()).logits)


@given(st.integers(1, 20000), st.data())
def test_reduction_factor_gives_the_width(hidden_size, data):
    width = data.draw(st.integers(1, hidden_size))
    assert bottleneck_width(hidden_size, reduction_factor(hidden_size, width)) == width


def test_the_other_form_does_not_survive_as_a_stale_file(tmp_path):
    model = QWEN2.model_with("a")
    save_adapter(model, tmp_path, "a")
    save_adapter(model, tmp_path, "a", safe=False)
    assert {path.name for path in tmp_path.iterdir()} == {JSON, BIN[ADAPTER]}


@pytest.mark.parametrize(
    "config, words",
    [
        (BottleneckConfig(placement="linear", init="lora"), ["placement='linear'"]),
        (BottleneckConfig(activation="identity"), ["activation='identity'"]),
        (BottleneckConfig(biased=False), ["biased=False"]),
        (BottleneckConfig(init="lora"), ["init='lora'"]),
        (BottleneckConfig(phm_dim=4, reduction_factor=4, phm_rule_rank=2), ["phm_rule_rank=2"]),
        (BottleneckConfig(target_modules=r".*layers\.1"), ["not in every layer"]),
        (FusionConfig(members=["a"], rank=2), ["rank=2"]),
        (FusionConfig(members=["a"], kind="average"), ["kind='average'"]),
        (FusionConfig(members=["a"], temperature=2.0), ["temperature=2.0"]),
    ],
)
def test_what_the_library_cannot_compute_is_not_written(tmp_path, config, words):
    model = get_peft_model(tiny(), BottleneckConfig(), adapter_name="a")
    model.add_adapter("x", config)
    save = save_fusion if isinstance(config, FusionConfig) else save_adapter
    assert_refused(lambda: save(model, tmp_path / "x", "x"), model, "'x'", *words)
    assert not (tmp_path / "x").exists()


def test_fusions_of_parallel_adapters_are_refused(tmp_path):
    """The library adds the residual stream to them twice, so its weights mean something else."""
    adapter = copied(QWEN2.adapter_directory("p1"), tmp_path / "a")
    model = load_adapter(QWEN2.base_model(), adapter, "a")
    for name in ("b", "c"):
        model = load_adapter(model, adapter, name)
    fusion = QWEN2.fusion_directory("dynamic")
    assert_refused(lambda: load_fusion(model, fusion), model, str(fusion), "at 'parallel'", "accepted are")
    model.add_adapter("f", FusionConfig(members=["a", "b"], task_type="CAUSAL_LM"))
    assert_refused(lambda: save_fusion(model, tmp_path / "f", "f"), model, "f fuses", "at 'parallel'")


def test_writing_names_what_the_model_holds(tmp_path):
    model = QWEN2.model_with("a", "b")
    assert_refused(lambda: save_adapter(model, tmp_path, "c"), model, "no bottleneck 'c'", "['a', 'b']")
    assert_refused(lambda: save_fusion(model, tmp_path, "a"), model, "no fusion 'a'")


def test_adapter_of_peft_is_neither_read_nor_overwritten(tmp_path):
    model = QWEN2.model_with("a")
    model.save_pretrained(tmp_path)
    directory, base = tmp_path / "a", QWEN2.base_model()
    assert_refused(lambda: save_adapter(model, directory, "a"), model, str(directory), "PEFT")
    assert_refused(lambda: load_adapter(base, directory), base, str(directory), "peft_type='ADAPTER_COMPOSITION'")


# What is refused

FIELDS = [
    ("original_ln_before", False, "accepted is True"),
    ("original_ln_after", False, "accepted is True"),
    ("ln_before", True, "accepted is False"),
    ("ln_after", True, "accepted is False"),
    ("use_gating", True, "accepted is False"),
    ("residual_before_ln", "post_add", "accepted is True"),
    ("adapter_residual_before_ln", True, "accepted is False"),
    ("inv_adapter", "nice", "accepted is None"),
    ("cross_adapter", True, "accepted is False"),
    ("leave_out", [1], "accepted is an adapter in every layer"),
    ("stochastic_depth", 0.1, "accepted is 0.0"),
    ("non_linearity", "tanh", "accepted is 'relu' or 'gelu' or 'swish'"),
    ("init_weights", "zero", "accepted is 'bert' or 'houlsby' or 'mam_adapter'"),
    ("scaling", "learned", "accepted is a number"),
    ("scaling", 10**400, "accepted is a number"),
    ("scaling", float("nan"), "accepted is a number"),
    ("reduction_factor", 10**400, "accepted is a number"),
    ("dropout", -(10**400), "accepted is a number"),
    ("reduction_factor", {"0": 4, "default": 8}, "accepted is a number"),
    ("reduction_factor", 0.5, "at least 1"),
    ("dropout", 1.5, "in [0, 1)"),
    ("architecture", "lora", "accepted is a bottleneck adapter"),
    ("architecture", "prefix_tuning", "accepted is a bottleneck adapter"),
    ("invented", 1, "accepted is None or False"),
    ("hidden_size", 128, "the model has 64"),
]
FUSION_FIELDS = [
    ("temperature", True, "accepted is False"),
    ("query_before_ln", True, "accepted is False"),
    ("residual_before", True, "accepted is False"),
    ("key", False, "accepted is True"),
    ("query", False, "accepted is True"),
    ("dropout_prob", "much", "accepted is a number"),
    ("dropout_prob", 10**400, "accepted is a number"),
    ("invented", 1, "accepted is None or False"),
    ("config", "learned", "'dynamic', 'static'"),
    ("hidden_size", 128, "the model has 64"),
    ("adapter_names", ["a", "b", "z"], "needs adapters ['z']"),
    ("adapter_names", [], "needs members"),
    ("adapter_names", 3, "adapter_names"),
]


@pytest.mark.parametrize("field, value, accepted", FIELDS)
def test_fields_that_are_not_computed_are_refused(tmp_path, field, value, accepted):
    directory = copied(QWEN2.adapter_directory("a"), tmp_path / "a")
    edit(directory / JSON, **{field: value})
    words = [str(directory / JSON), field, accepted]
    base, model = QWEN2.base_model(), QWEN2.model_with("b")
    for target in (base, model):
        assert_refused(lambda target=target: load_adapter(target, directory), target, *words)


@pytest.mark.parametrize("field, value", [("shared_W_phm", True), ("learn_phm", False), ("phm_bias", False),
                                          ("phm_dim", None), ("phm_rank", 1.5), ("phm_dim", 10**400),
                                          ("phm_rank", 10**400)])  # fmt: skip
def test_fields_of_phm_layers_are_refused_where_they_matter(tmp_path, field, value):
    directory, base = copied(QWEN2.adapter_directory("cpp"), tmp_path / "cpp"), QWEN2.base_model()
    edit(directory / JSON, **{field: value})
    assert_refused(lambda: load_adapter(base, directory), base, str(directory / JSON), field, "accepted is")


@pytest.mark.parametrize("field, value, accepted", [
    ("phm_dim", 0, "at least 1"), ("phm_dim", -4, "at least 1"), ("phm_dim", 10**9, "phm_dim must divide"),
    ("phm_rank", -1, "at least 1"), ("phm_rank", 10**9, "phm_rank must not exceed"),
])  # fmt: skip
def test_sizes_of_phm_layers_that_cannot_be_are_refused(tmp_path, field, value, accepted):
    directory, base = copied(QWEN2.adapter_directory("cpp"), tmp_path / "cpp"), QWEN2.base_model()
    edit(directory / JSON, **{field: value})
    assert_refused(lambda: load_adapter(base, directory), base, str(directory / JSON), field, accepted)


def test_attention_adapter_alone_is_refused(tmp_path):
    directory, base = copied(QWEN2.adapter_directory("h1"), tmp_path / "h1"), QWEN2.base_model()
    edit(directory / JSON, output_adapter=False)
    assert_refused(lambda: load_adapter(base, directory), base, str(directory / JSON), "mh_adapter", "accepted are")


def test_gelu_of_files_without_a_version_is_another_one(tmp_path):
    directory, base = copied(QWEN2.adapter_directory("cpp"), tmp_path / "cpp"), QWEN2.base_model()
    given = json.loads((directory / JSON).read_text())
    del given["version"]
    (directory / JSON).write_text(json.dumps(given))
    assert_refused(lambda: load_adapter(base, directory), base, str(directory / JSON), "gelu", "version")


@pytest.mark.parametrize("field, value, accepted", FUSION_FIELDS)
def test_fields_of_fusions_that_are_not_computed_are_refused(tmp_path, field, value, accepted):
    directory, model = copied(QWEN2.fusion_directory("dynamic"), tmp_path / "f"), QWEN2.model_with("a", "b", "c")
    edit(directory / FUSION_JSON, **{field: value})
    assert_refused(
        lambda: load_fusion(model, directory), model, str(directory / FUSION_JSON), field.split("_")[0], accepted
    )


def test_fusion_needs_its_members():
    base, directory = QWEN2.base_model(), QWEN2.fusion_directory("dynamic")
    assert_refused(lambda: load_fusion(base, directory), base, str(directory), "['a', 'b', 'c']", "holds []")


def test_taken_and_impossible_names_are_refused():
    model = QWEN2.model_with("a", "b", "c")
    adapter, fusion = QWEN2.adapter_directory("a"), QWEN2.fusion_directory("dynamic")
    assert_refused(lambda: load_adapter(model, adapter), model, str(adapter), "already holds an adapter 'a'")
    assert_refused(lambda: load_adapter(model, adapter, "a.b"), model, str(adapter), "'a.b' cannot be")
    assert_refused(lambda: load_fusion(model, fusion, "a"), model, str(fusion), "already holds an adapter 'a'")


def test_members_of_several_places_are_refused(tmp_path):
    directory = copied(QWEN2.adapter_directory("h1"), tmp_path / "a")
    model = load_adapter(QWEN2.model_with("b", "c"), directory, "a")
    fusion = copied(QWEN2.fusion_directory("dynamic"), tmp_path / "f")
    assert_refused(lambda: load_fusion(model, fusion), model, str(fusion))


class Hostile:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def lose(key_part: str):
    return lambda directory: edit_tensors(directory / ADAPTER, lambda key: None if key_part in key else key)


def reshape(directory: Path) -> None:
    tensors = load_file(directory / ADAPTER)
    save_file({key: torch.cat([tensor, tensor]) for key, tensor in tensors.items()}, directory / ADAPTER)


def truncate(name: str, keep: float = 0.5):
    def cut(directory: Path) -> None:
        if name == BIN[ADAPTER]:
            as_bin(directory, ADAPTER)
        content = (directory / name).read_bytes()
        (directory / name).write_bytes(content[: int(len(content) * keep)])

    return cut


def replace_tensors(value):
    def change(directory: Path) -> None:
        (directory / ADAPTER).unlink()
        torch.save(value, directory / BIN[ADAPTER])

    return change


def change_tensors(change):
    """Puts a function of the first tensor in its place, in the pickled form."""

    def apply(directory: Path) -> None:
        tensors = load_file(directory / ADAPTER)
        first = next(iter(tensors))
        replace_tensors(tensors | {first: change(tensors[first])})(directory)

    return apply


def compress(directory: Path) -> None:
    """Tensors of zeros that become a thousand times as large when they are read."""
    replace_tensors({"model.layers.0.x": torch.zeros(2_000_000)})(directory)
    path = directory / BIN[ADAPTER]
    with zipfile.ZipFile(path) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    assert path.stat().st_size < 20_000


def pipe(name: str):
    def make(directory: Path) -> None:
        (directory / name).unlink()
        os.mkfifo(directory / name)

    return make


DAMAGE = {
    "numbers as names": (
        replace_tensors({1: torch.ones(2)}),
        [BIN[ADAPTER], "no dictionary of tensors by their names"],
    ),
    "tensors without values": (change_tensors(lambda t: t.to("meta")), [BIN[ADAPTER], "has no values"]),
    "NaN": (change_tensors(lambda t: t * float("nan")), [BIN[ADAPTER], "values that are not finite"]),
    "infinity": (change_tensors(lambda t: t + float("inf")), [BIN[ADAPTER], "values that are not finite"]),
    "one value spread over many": (change_tensors(lambda t: t.flatten()[:1].expand(10**9)), [BIN[ADAPTER], "needs"]),
    "compressed tensors": (compress, [BIN[ADAPTER], "compressed"]),
    "pipe for JSON": (pipe(JSON), [JSON, "not a file"]),
    "pipe for tensors": (pipe(ADAPTER), [ADAPTER, "not a file"]),
    "JSON without end": (lambda d: (d / JSON).write_text("[" * (2**24 + 1)), [JSON, "over 16,777,216 bytes"]),
    "malformed JSON": (lambda d: (d / JSON).write_text("{"), [JSON, "not JSON"]),
    "JSON of another kind": (lambda d: (d / JSON).write_text("[]"), [JSON, "list"]),
    "not UTF-8": (lambda d: (d / JSON).write_bytes(b"\xff\xfe{"), [JSON, "not JSON"]),
    "no nested config": (lambda d: edit(d / JSON, config=None), [JSON, "config"]),
    "no configuration": (lambda d: (d / JSON).unlink(), [JSON, "cannot be read"]),
    "no tensors": (lambda d: (d / ADAPTER).unlink(), ["holds neither", BIN[ADAPTER]]),
    "truncated safetensors": (truncate(ADAPTER), [ADAPTER, "damaged"]),
    "empty safetensors": (truncate(ADAPTER, 0), [ADAPTER, "damaged"]),
    "truncated pickle": (truncate(BIN[ADAPTER]), [BIN[ADAPTER], "damaged"]),
    "empty pickle": (truncate(BIN[ADAPTER], 0), [BIN[ADAPTER], "damaged"]),
    "pickle of a list": (replace_tensors([torch.ones(2)]), [BIN[ADAPTER], "no dictionary of tensors"]),
    "pickle of numbers": (replace_tensors({"a": 1}), [BIN[ADAPTER], "no dictionary of tensors"]),
    "missing tensor": (lose("layers.0.output_adapters.adapters.a.adapter_up.bias"), [ADAPTER, "adapter_up.bias", "1 "]),
    "missing layer": (lose("layers.1."), [ADAPTER, "layers.1", "4 missing"]),
    "one layer too many": (
        lambda d: save_file(load_file(d / ADAPTER) | {"model.layers.2.x": torch.ones(1)}, d / ADAPTER),
        [ADAPTER, "layers.2.x", "without a place"],
    ),
    "wrong width": (reshape, [ADAPTER, "(8,)", "needs (4,)"]),
    "whole numbers": (
        lambda d: save_file({k: t.to(torch.int32) for k, t in load_file(d / ADAPTER).items()}, d / ADAPTER),
        [ADAPTER, "torch.int32"],
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_adapters_are_refused(tmp_path, kind):
    damage, words = DAMAGE[kind]
    directory = copied(QWEN2.adapter_directory("a"), tmp_path / "a")
    damage(directory)
    for target in (QWEN2.base_model(), QWEN2.model_with("b")):
        assert_refused(lambda target=target: load_adapter(target, directory), target, str(directory), *words)


@pytest.mark.parametrize("file", [ADAPTER, FUSION])
def test_hostile_pickle_is_refused_and_not_run(tmp_path, file):
    trace = tmp_path / "trace"
    name = {ADAPTER: "a", FUSION: "dynamic"}[file]
    source = QWEN2.adapter_directory(name) if file == ADAPTER else QWEN2.fusion_directory(name)
    directory, model = copied(source, tmp_path / "x"), QWEN2.model_with("a", "b", "c")
    (directory / file).unlink()
    load = {ADAPTER: load_adapter, FUSION: load_fusion}[file]
    for save in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))):
        save({"model.layers.0": Hostile(trace)}, directory / BIN[file])
        assert_refused(lambda: load(model, directory, "new"), model, str(directory / BIN[file]), "more than tensors")
        assert not trace.exists()
    pickle.loads((directory / BIN[file]).read_bytes())
    assert trace.exists(), "the pickle is harmless: this test shows nothing"


def test_absent_directories_are_named(tmp_path):
    model = QWEN2.model_with("a")
    for load in (load_adapter, load_fusion, load_setup):
        assert_refused(lambda load=load: load(model, tmp_path / "absent", "x"), model, str(tmp_path / "absent"))


@pytest.mark.parametrize(
    "setup",
    [
        None,
        [],
        {"type": "Stack", "children": [{"type": "single", "children": ["a"]}]},
        {"type": "Fuse", "children": [{"type": "Stack", "children": ["a", "b"]}]},
        {"type": "Fuse", "children": []},
        {"type": "Fuse", "children": ["a"]},
        {"type": "Fuse", "children": [{"type": "single", "children": ["../a"]}]},
        {"type": "Fuse", "children": [{"type": "single", "children": [3]}]},
    ],
)
def test_other_setups_are_refused(tmp_path, setup):
    directory, base = setup_directory(tmp_path), QWEN2.base_model()
    (directory / "adapter_setup.json").write_text(json.dumps({"adapter_setup": setup}))
    assert_refused(lambda: load_setup(base, directory), base, str(directory / "adapter_setup.json"))


def test_setup_with_a_damaged_part_adds_nothing(tmp_path):
    directory, base = setup_directory(tmp_path), QWEN2.base_model()
    truncate(FUSION)(directory / "a,b,c")
    assert_refused(lambda: load_setup(base, directory), base, str(directory / "a,b,c" / FUSION))
    assert not any("composition" in key for key, _ in base.named_modules())


def test_setup_needs_one_fusion_of_its_members(tmp_path):
    directory, base = setup_directory(tmp_path), QWEN2.base_model()
    edit(directory / "a,b,c" / FUSION_JSON, adapter_names=["b", "a", "c"])
    assert_refused(lambda: load_setup(base, directory), base, str(directory / "a,b,c"), "['b', 'a', 'c']")
    copied(directory / "a,b,c", directory / "more")
    assert_refused(lambda: load_setup(base, directory), base, str(directory), "2 directories")


def test_setup_under_taken_names_adds_nothing(tmp_path):
    directory, base, model = setup_directory(tmp_path), QWEN2.base_model(), QWEN2.model_with("c")
    assert_refused(lambda: load_setup(model, directory), model, str(directory), "already holds an adapter 'c'")
    assert_refused(lambda: load_setup(base, directory, "b"), base, str(directory), "must all differ")


# In company of other adapters


@pytest.mark.parametrize("name", ["a", "h1", "p1", "cmp"])
def test_other_places_at_the_same_modules_do_not_matter(tmp_path, name):
    """Adapters of several placements may share a module: the sites and the widths are each adapter's own."""
    expected = QWEN2.model_with(name)(**QWEN2.inputs()).logits
    linear = r".*layers\.\d+\.(self_attn\.o_proj|mlp\.down_proj)"
    config = BottleneckConfig(placement="linear", target_modules=linear, task_type="CAUSAL_LM")
    model = get_peft_model(QWEN2.base_model(), config, adapter_name="lora")
    for other in ("b", "h2", "p1", name):
        if other not in model.peft_config:
            model = load_adapter(model, QWEN2.adapter_directory(other))
    model.set_adapter(name)
    assert torch.equal(model.eval()(**QWEN2.inputs()).logits, expected)
    save_adapter(model, tmp_path, name)
    assert_same_files(tmp_path, QWEN2.adapter_directory(name), ADAPTER, JSON)


def test_deleted_adapters_leave_nothing_to_another_of_their_name(tmp_path):
    own = {"phm_dim": 2, "reduction_factor": 8, "task_type": "CAUSAL_LM"}
    model = QWEN2.model_with("a")
    model.add_adapter("cpp", BottleneckConfig(**own))  # with a rule of another shape
    model.delete_adapter("cpp")
    model = load_adapter(model, QWEN2.adapter_directory("cpp"))
    model.set_adapter("cpp")
    expected = QWEN2.model_with("cpp")(**QWEN2.inputs()).logits
    assert torch.equal(model.eval()(**QWEN2.inputs()).logits, expected)


def test_deleted_fusions_leave_no_mask_to_another_of_their_name():
    model = QWEN2.model_with(fusion="dynamic")
    expected = model(**QWEN2.inputs()).logits
    fusion_members(model, masked=["c"])
    model.delete_adapter("dynamic")
    model = load_fusion(model, QWEN2.fusion_directory("dynamic"), "dynamic")
    model.set_adapter("dynamic")
    assert torch.equal(model.eval()(**QWEN2.inputs()).logits, expected)
