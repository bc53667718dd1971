"""The plan of the house: rooms, the one direction of imports between them, and doors that stay shut."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

import difficulty_prune as dp

PACKAGE = Path(dp.__file__).parent
FLOORS = (
    {"version", "_C", "_host"},
    {"support"},
    {"ops", "dataset_facts", "identity"},
    {"scores", "mixing", "policies"},
    {"decisions", "corrected"},
    {"data"},
    {"matched_ids", "apply_decisions"},
    {"runs"},
    {"tracker", "consistency", "fingerprint"},
    {"frozen", "sampler", "selected_rows", "plots", "convert", "streams"},
    {"integrations", "audit"},
    {"comparison", "advice"},
    {"study"},
    {"bench"},
    {"cli"},
)
"""From the ground up: a room imports from lower floors, and from itself."""

FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FACES = {path.parent for path in PACKAGE.rglob("__init__.py")}
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
ROOMS = sorted(MODULES.keys() - {name for name in MODULES if name.endswith("__init__")})


def imports(module: str) -> Iterator[tuple[str, str]]:
    """What a module imports from the package, also in functions and under TYPE_CHECKING: module and name."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "difficulty_prune":
                    yield alias.name.removeprefix("difficulty_prune").lstrip("."), ""
        elif isinstance(node, ast.ImportFrom):
            here = module.split(".")[: -node.level] if node.level else []
            if node.level == 0 and (node.module or "").split(".")[0] != "difficulty_prune":
                continue
            said = (node.module or "").removeprefix("difficulty_prune" if node.level == 0 else "").strip(".")
            target = ".".join([*here, *([said] if said else [])])
            for alias in node.names:
                inside = f"{target}.{alias.name}".lstrip(".")
                yield (inside, "") if inside in MODULES or alias.name in ("_C", "_host") else (target, alias.name)


NEWER = {
    "Self",
    "Never",
    "LiteralString",
    "Required",
    "NotRequired",
    "TypeVarTuple",
    "Unpack",
    "assert_never",
    "override",
}
"""What `typing` has not had in Python 3.10, the oldest that is promised."""


def test_nothing_is_imported_that_the_oldest_python_lacks():
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:  # not under TYPE_CHECKING
            if isinstance(node, ast.ImportFrom) and node.module == "typing":
                assert NEWER.isdisjoint(alias.name for alias in node.names), module


@pytest.mark.parametrize("module", ROOMS)
def test_imports_run_one_way(module: str) -> None:
    own = FLOOR[module.split(".")[0]]
    for target, _ in imports(module):
        room = target.split(".")[0]
        assert room == module.split(".")[0] or FLOOR[room] < own, f"{module} reaches up to {target}"


def test_there_is_no_circle() -> None:
    TopologicalSorter({module: {target for target, _ in imports(module)} for module in ROOMS}).prepare()


@pytest.mark.parametrize("module", ROOMS)
def test_modules_import_from_modules_and_not_from_faces(module: str) -> None:
    for target, name in imports(module):
        known = target in MODULES or target in ("_C", "_host")
        assert known, f"{module} takes {name!r} from the face of {target or 'difficulty_prune'}"


@cache
def private_names(module: str) -> set[str]:
    """Underscore names that a module defines: functions, classes, attributes that it sets, fields."""
    tree = ast.parse(MODULES[module].read_text())
    names = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    names |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    names |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")} - {"_fields"}


@pytest.mark.parametrize("module", ROOMS)
def test_nothing_reaches_for_the_underscore_names_of_another_module(module: str) -> None:
    for target, name in imports(module):
        assert not name.startswith("_") or name.startswith("__"), f"{module} takes {name} from {target}"
    of_others = set().union(*(private_names(other) for other in ROOMS)) - private_names(module)
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) != "super()":
            assert node.attr not in of_others, f"{module}:{node.lineno} {ast.unparse(node)}"


FAMILIES = {
    "advice": {"advise"},
    "convert.formats": {"read", "write"},
    "convert.spotlight": {"to_pandas", "to_spotlight"},
    "data": {"IndexedDataset", "dataset_fingerprint", "reduce_loss"},
    "mixing": {"dominant"},
    "policies.base": {"Policy"},
    "policies.uniform": {"Easiest", "Hardest", "Random", "Window"},
    "policies.weighted": {"Importance", "SoftPrune"},
    "policies.compose": {"PerClass", "within"},
    "scores.catalogue": {"Score", "score_names"},
    "scores.detection": {"ood", "selective_accuracy"},
    "scores.ensembles": {
        *("Dichotomy", "Estimate", "agreement", "dichotomy", "ensemble_confidence", "held_out_consistency"),
        *("memorization", "model_accuracy"),
    },
    "scores.logit_scores": {"trajectory_scores"},
    "scores.temporal": {"dual", "dyn_unc", "tdds"},
    "fingerprint.compare_selectors": {"Comparison", "Row"},
}
"""Files that hold several public names of one kind, and are named after the kind."""


def public_names() -> Iterator[tuple[str, str]]:
    """Name and module of every function and class that a face hands out."""
    for face in (dp, dp.policies, dp.scores, dp.consistency, dp.fingerprint, dp.convert, dp.audit):
        for name in face.__all__:
            module = getattr(getattr(face, name), "__module__", "")
            if callable(getattr(face, name)) and module.startswith("difficulty_prune."):
                yield name, module.removeprefix("difficulty_prune.")


def words(name: str) -> list[str]:
    """Those of `ScoreSource` are those of `score_source`."""
    spaced = "".join(f"_{a}" if a.isupper() and not b.isupper() else a for a, b in pairwise(f"{name}_"))
    return [word.lower().rstrip("s") for word in spaced.split("_") if word]


@pytest.mark.parametrize(("name", "module"), sorted(set(public_names())))
def test_a_public_name_stands_in_a_file_that_is_named_after_it(name: str, module: str) -> None:
    file = module.split(".")[-1]
    named_after_it = file == name.lower() or set(words(file)) & set(words(name))
    assert named_after_it or name in FAMILIES.get(module, ()), f"{name} stands in {module}"
