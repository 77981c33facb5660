"""The files of the `adapters` library (AdapterHub): JSON, tensors, and its configurations next to this tuner's.

| this tuner         | the library's fields                                                     |
|--------------------|--------------------------------------------------------------------------|
| placement output   | output_adapter, original_ln_before: reads the stream, residual included  |
| placement houlsby  | mh_adapter, output_adapter, not original_ln_before                       |
| placement parallel | output_adapter, is_parallel; original_ln_before has no effect            |
| phm_dim, ...       | phm_layer, phm_dim, phm_rank with factorized_phm_W, shared_phm_rule, ... |
| value              | value; value_before_softmax is the same function either way              |

Every ValueError is one sentence with the file, the field and what is accepted.
"""

from __future__ import annotations

import json
import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from studykit.tuners.bottleneck import bottleneck_width
from studykit.tuners.config import BottleneckConfig, FusionConfig, check_name

VERSION = "adapters.1.3.0"  # the version of the library whose fields are written
ADAPTER = ("adapter_config.json", "adapter.safetensors", "pytorch_adapter.bin")
FUSION = ("adapter_fusion_config.json", "model_adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin")
SETUP = "adapter_setup.json"
HEADS = ("head_config.json", "model_head.safetensors", "pytorch_model_head.bin")
LARGEST = 1e9  # magnitude of a number in a configuration
LARGEST_JSON = 2**24  # bytes
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

PLACEMENT_FIELDS = ("mh_adapter", "output_adapter", "is_parallel", "original_ln_before")
PLACEMENTS = {  # the values of these fields, by placement
    "output": (False, True, False, True),
    "houlsby": (True, True, False, False),
    "parallel": (False, True, True, False),
}
ACTIVATIONS, INITS = ("relu", "gelu", "swish"), ("bert", "houlsby", "mam_adapter")

# Fields that must have these values, in bottlenecks, in bottlenecks with PHM weights, and in fusions.
FIXED = {
    "original_ln_after": True,
    "ln_before": False,
    "ln_after": False,
    "use_gating": False,
    "residual_before_ln": True,
    "adapter_residual_before_ln": False,
    "inv_adapter": None,
    "cross_adapter": False,
    "stochastic_depth": 0.0,
}
FIXED_PHM = {"shared_W_phm": False, "learn_phm": True, "phm_bias": True}
FIXED_FUSION = {"key": True, "query": True, "query_before_ln": False, "residual_before": False, "temperature": False}

# All fields that have a default, with the library's defaults.
BOTTLENECK: dict[str, Any] = {
    **FIXED,
    **FIXED_PHM,
    "original_ln_before": False,
    "init_weights": "bert",
    "init_weights_seed": None,
    "is_parallel": False,
    "scaling": 1.0,
    "inv_adapter_reduction_factor": None,
    "leave_out": [],
    "dropout": 0.0,
    "phm_layer": False,
    "phm_dim": 4,
    "factorized_phm_W": True,
    "shared_phm_rule": True,
    "factorized_phm_rule": False,
    "phm_c_init": "normal",
    "phm_init_range": 0.0001,
    "hypercomplex_nonlinearity": "glorot-uniform",
    "phm_rank": 1,
}
DYNAMIC = {
    **FIXED_FUSION,
    "value": True,
    "regularization": True,
    "value_before_softmax": True,
    "value_initialized": True,
    "dropout_prob": None,
}
STATIC = {**DYNAMIC, "value": False, "regularization": False, "value_initialized": False}


@dataclass
class Origin:
    """The content of a file beyond this tuner's configuration, kept as the attribute `origin` of the configuration."""

    fields: dict[str, Any]  # the library's fields as the file has them
    label: str  # the library's name of the adapter or fusion
    dtype: torch.dtype  # of the tensors in the file


def origin(config: BottleneckConfig | FusionConfig) -> Origin:
    """Returns the origin of a configuration; an empty one if it was not read from a file."""
    return getattr(config, "origin", Origin({}, "", torch.float32))


def trust_tensors(path: Path, fields: dict, tensors: dict[str, Tensor]) -> dict:
    """Returns the fields with the library's defaults, corrected by the names of the tensors, and warns if they differ.

    The library confuses configurations that differ only in fields of PHM layers: one adapter then overwrites the
    other's, and is saved with fields that its tensors contradict.
    """
    actual = {"phm_layer": any(key.endswith((".W", ".W_left")) for key in tensors)}
    if actual["phm_layer"]:
        actual["factorized_phm_W"] = any(key.endswith(".W_left") for key in tensors)
        actual["shared_phm_rule"] = any(key.startswith("shared_parameters.") for key in tensors)
        actual["factorized_phm_rule"] = any(key.endswith(".phm_rule_left") for key in tensors)
    fields = BOTTLENECK | fields
    if wrong := [field for field, value in actual.items() if bool(fields[field]) != value]:
        stated = ", ".join(f"{field}={fields[field]!r}" for field in wrong)
        warnings.warn(
            f"{path} states {stated}, but its tensors show the opposite; the tensors are followed.", stacklevel=4
        )
    return fields | actual


def bottleneck_config(path: Path, fields: dict, layers: int, version: str | None) -> BottleneckConfig:
    """Returns this tuner's configuration of a bottleneck, for a model with this many layers."""
    known = {*BOTTLENECK, *PLACEMENT_FIELDS, "reduction_factor", "non_linearity", "architecture"}
    for field in sorted(fields.keys() - known):
        check(path, fields, field, (None, False))
    for field, accepted in (FIXED | (FIXED_PHM if fields["phm_layer"] else {})).items():
        check(path, fields, field, (accepted,))
    flags = tuple(bool(fields.get(field)) for field in PLACEMENT_FIELDS[:3])
    placement = next((name for name, values in PLACEMENTS.items() if values[:3] == flags), None)
    if placement is None:
        supported = " or ".join(str(values[:3]) for values in PLACEMENTS.values())
        raise ValueError(
            f"{path}: {', '.join(PLACEMENT_FIELDS[:3])}={flags} is not supported; accepted are {supported}."
        )
    if placement != "parallel":
        check(path, fields, "original_ln_before", (PLACEMENTS[placement][3],))
    leave_out = fields["leave_out"] or []
    if not isinstance(leave_out, list) or any(layer in leave_out for layer in range(layers)):
        raise ValueError(f"{path}: leave_out={leave_out!r} is not supported; accepted is an adapter in every layer.")
    for field in ("reduction_factor", "scaling", "dropout"):
        check_number(path, fields, field, float)
    check(path, fields, "non_linearity", ACTIVATIONS)
    if version is None and fields["non_linearity"] == "gelu":
        raise ValueError(f"{path}: non_linearity='gelu' without `version` is the tanh form; accepted is the exact one.")
    check(path, fields, "init_weights", INITS)
    phm = {}
    if fields["phm_layer"]:
        for field in ("phm_dim", "phm_rank"):
            check_number(path, fields, field, int)
        phm = {
            "phm_dim": fields["phm_dim"],
            "phm_rank": fields["phm_rank"] if fields["factorized_phm_W"] else None,
            "phm_shared_rule": fields["shared_phm_rule"],
            "phm_rule_rank": 1 if fields["factorized_phm_rule"] else None,
        }
    return BottleneckConfig(
        placement=placement,
        reduction_factor=fields["reduction_factor"],
        activation=fields["non_linearity"],
        scaling=float(fields["scaling"]),
        dropout=fields["dropout"],
        init=fields["init_weights"],
        **phm,
    )


def bottleneck_fields(name: str, config: BottleneckConfig, hidden_size: int) -> dict:
    """Returns all of the library's fields of an adapter; raises ValueError if it cannot compute this adapter."""
    check_writable(name, config, "placement", tuple(PLACEMENTS))
    check_writable(name, config, "activation", ACTIVATIONS)
    check_writable(name, config, "init", INITS)
    check_writable(name, config, "biased", (True,))
    check_writable(name, config, "phm_rule_rank", (None, 1))
    fields = BOTTLENECK | dict(zip(PLACEMENT_FIELDS, PLACEMENTS[config.placement], strict=True)) | origin(config).fields
    fields |= {
        "reduction_factor": reduction_factor(hidden_size, config.rank) if config.rank else config.reduction_factor,
        "non_linearity": config.activation,
        "scaling": float(config.scaling),
        "dropout": config.dropout,
        "init_weights": config.init,
        "phm_layer": config.phm_dim is not None,
    }
    if config.phm_dim is not None:
        fields |= {
            "phm_dim": config.phm_dim,
            "phm_rank": config.phm_rank or fields["phm_rank"],
            "factorized_phm_W": config.phm_rank is not None,
            "shared_phm_rule": config.phm_shared_rule,
            "factorized_phm_rule": config.phm_rule_rank is not None,
        }
    return fields


def fusion_config(path: Path, fields: Any, members: list[str], default_dropout: float) -> FusionConfig:
    """Returns this tuner's configuration of a fusion; a `dropout_prob` of null stands for `default_dropout`."""
    if isinstance(fields, str):
        fields = {"dynamic": DYNAMIC, "static": STATIC}.get(fields, fields)
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: config={fields!r} is not supported; accepted are the fields, 'dynamic', 'static'.")
    fields = DYNAMIC | fields
    for field in sorted(fields.keys() - DYNAMIC.keys()):
        check(path, fields, field, (None, False))
    for field, accepted in FIXED_FUSION.items():
        check(path, fields, field, (accepted,))
    dropout = {"dropout_prob": fields["dropout_prob"] or default_dropout}
    check_number(path, dropout, "dropout_prob", float)
    config: Any = FusionConfig(members=members, value=bool(fields["value"]), dropout=dropout["dropout_prob"])
    config.origin = Origin(fields, "", torch.float32)
    return config


def fusion_fields(name: str, config: FusionConfig, default_dropout: float) -> dict:
    """Returns all of the library's fields of a fusion; raises ValueError if it cannot compute this composition."""
    check_writable(name, config, "kind", ("attention",))
    check_writable(name, config, "rank", (None,))
    check_writable(name, config, "temperature", (1,))
    check_writable(name, config, "scores", ("dot",))
    fields = (DYNAMIC if config.value else STATIC) | origin(config).fields
    if (fields["dropout_prob"] or default_dropout) != config.dropout:
        fields["dropout_prob"] = config.dropout
    return fields


def reduction_factor(hidden_size: int, width: int) -> float:
    """Returns the reduction factor whose bottleneck has exactly this width."""
    factor = hidden_size / width if hidden_size % width else hidden_size // width
    while bottleneck_width(hidden_size, factor) < width:
        factor = math.nextafter(factor, 0.0)
    return factor


def check(path: Path, fields: dict, field: str, accepted: tuple) -> None:
    """Raises ValueError unless a field has one of the accepted values."""
    if fields.get(field) not in accepted:
        values = " or ".join(repr(value) for value in accepted)
        raise ValueError(f"{path}: {field}={fields.get(field)!r} is not supported; accepted is {values}.")


def check_number(path: Path, fields: dict, field: str, kind: type[int] | type[float]) -> None:
    """Raises ValueError unless a field is a finite number of this kind."""
    value: Any = fields.get(field)
    is_number = isinstance(value, (int, kind)) and not isinstance(value, bool)
    if not is_number or not -LARGEST <= value <= LARGEST:  # which NaN is not either
        raise ValueError(f"{path}: {field}={value!r} is not supported; accepted is a number.")


def check_writable(name: str, config: BottleneckConfig | FusionConfig, field: str, accepted: tuple) -> None:
    """Raises ValueError unless a field of a configuration has a value that the library can compute."""
    if getattr(config, field) not in accepted:
        value = f"{field}={getattr(config, field)!r}"
        raise ValueError(f"{name!r} has {value}, which the adapters library cannot compute; it can {list(accepted)}.")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the path to a ValueError that does not name it."""
    try:
        yield
    except ValueError as error:
        raise (error if str(path) in str(error) else ValueError(f"{path}: {error}")) from None


def checked_name(path: Path, name: str, commas: bool = False) -> str:
    """Returns a name that this tuner accepts, or with `commas` several in one; raises ValueError for another."""
    with naming(path):
        for part in name.split(",") if commas else [name]:
            check_name(part)
    return name


def require_file(path: Path) -> None:
    """Raises ValueError for what exists and is no file: a pipe would be waited for without end."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file.")


def read_json(path: Path) -> dict:
    """Reads a JSON object; raises ValueError if there is none."""
    try:
        require_file(path)
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"over {LARGEST_JSON:,} bytes")
        given = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(f"{path} cannot be read; a directory written by the adapters library is needed.") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}.") from None
    if not isinstance(given, dict):
        raise ValueError(f"{path} holds a {type(given).__name__}, not an object.")
    return given


def read_tensors(directory: Path, names: tuple[str, str, str]) -> tuple[dict[str, Tensor], Path]:
    """Returns the tensors of a file by name, without `model.`, and the file; only tensors are ever unpickled."""
    path = next((directory / name for name in names[1:] if (directory / name).exists()), None)
    if path is None:
        raise ValueError(f"{directory} holds neither {names[1]} nor {names[2]}.")
    require_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError(f"{path} holds compressed tensors, which torch never writes; it is not read.")
    load = load_file if path.name == names[1] else partial(torch.load, map_location="cpu", weights_only=True)
    try:
        tensors = load(path)
    except Exception as error:  # anything that a damaged or hostile file provokes
        raise ValueError(f"{path} is damaged or holds more than tensors ({type(error).__name__}).") from None
    is_dictionary = isinstance(tensors, dict) and all(isinstance(tensor, Tensor) for tensor in tensors.values())
    if not is_dictionary or not all(isinstance(key, str) for key in tensors):
        raise ValueError(f"{path} holds no dictionary of tensors by their names.")
    return {key.removeprefix("model."): tensor for key, tensor in tensors.items()}, path


def check_fit(path: Path, tensors: dict[str, Tensor], expected: dict[str, tuple]) -> torch.dtype:
    """Returns the dtype of all tensors, fp32 if they have several; raises ValueError if they are not those expected."""
    if missing := sorted(expected.keys() - tensors.keys()):
        raise ValueError(f"{path} lacks {missing[0]}, one of {len(missing)} missing tensors.")
    if extra := sorted(tensors.keys() - expected.keys()):
        raise ValueError(f"{path} holds {extra[0]}, one of {len(extra)} tensors without a place in the model.")
    for key, tensor in tensors.items():
        if tuple(tensor.shape) != expected[key]:
            raise ValueError(f"{path}: {key} is {tuple(tensor.shape)}, the model needs {expected[key]}.")
        if tensor.dtype not in DTYPES or tensor.layout != torch.strided:
            raise ValueError(f"{path}: {key} is {tensor.dtype}; accepted are {[str(dtype) for dtype in DTYPES]}.")
        if tensor.is_meta or not tensor.isfinite().all():
            raise ValueError(f"{path}: {key} has {'no values' if tensor.is_meta else 'values that are not finite'}.")
    dtypes = {tensor.dtype for tensor in tensors.values()}
    return dtypes.pop() if len(dtypes) == 1 else torch.float32


def write_json(path: Path, given: dict, sort_keys: bool = True) -> None:
    """Writes a JSON object as the library does."""
    path.write_text(json.dumps(given, indent=2, sort_keys=sort_keys), encoding="utf-8")
