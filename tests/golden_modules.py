"""Golden cases of the study's modules: recorded inputs, weights and outputs, and the rule that compares them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_FOLDER = Path(__file__).resolve().parent / "golden" / "modules"


@dataclass
class Case:
    """One recorded case; `inputs` and `outputs` by role ("x", "c2", "p2"), `weights` by role."""

    hyper: dict[str, Any]
    tolerance: float
    inputs: dict[str, Tensor]
    weights: dict[str, Tensor]
    outputs: dict[str, Tensor]

    def load_into(self, module: nn.Module, names: dict[str, str]) -> None:
        """Load the weights strictly; `names` maps a role's stem ("main") to the module's conv ("gs.main")."""
        state = {}
        for role, value in self.weights.items():
            stem = max((s for s in names if role == s or role.startswith(s + "_")), key=len)
            rest = role[len(stem) :].removeprefix("_")
            rest = "weight" if rest in ("", "conv") else rest.replace("bn_", "norm.")
            state[f"{names[stem]}.{rest}"] = value
        report = module.load_state_dict(state, strict=False)
        assert not report.unexpected_keys
        assert all(key.endswith("num_batches_tracked") for key in report.missing_keys), report.missing_keys

    def check(self, found: dict[str, Tensor]) -> None:
        """max |y - ref| <= tol * max(1, max |ref|) for each recorded output; shapes are equal."""
        for role, expected in self.outputs.items():
            assert found[role].shape == expected.shape
            error = (found[role] - expected).abs().max().item()
            bound = self.tolerance * max(1.0, expected.abs().max().item())
            assert error <= bound, f"{role}: error {error:.2e} > {bound:.2e}"


def load_case(name: str) -> Case:
    """The case `name` of `golden/modules`."""
    facts = json.loads((_FOLDER / "cases.json").read_text())[name]
    with np.load(_FOLDER / f"{name}.npz") as arrays:
        roles = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    parts = [{k.removeprefix(p): v for k, v in roles.items() if k.startswith(p)} for p in ("in_", "w_", "out_")]
    return Case(facts["hyper"], facts["tolerance"], *parts)


def count_parameters(module: nn.Module) -> int:
    """Number of learnable values, norm affine pairs included."""
    return sum(p.numel() for p in module.parameters())
