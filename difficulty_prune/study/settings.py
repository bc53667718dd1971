"""What a study is asked to do, and the policies that it knows by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any, Final

from ..policies.base import Policy
from ..policies.compose import PerClass
from ..policies.easy_to_hard import EasyToHard
from ..policies.review import Review
from ..policies.stratified import Stratified
from ..policies.uniform import Easiest, Hardest, Random, Window
from ..policies.weighted import Importance, SoftPrune
from ..scores.catalogue import TRACKED, recorded, score_names
from ..scores.temporal import TEMPORAL, TemporalOptions
from ..support.checks import check_fraction
from ..support.complete_data import complete_data
from .cluster_address import FORM, cluster_address
from .halfway import needs_halves
from .hold_out import check_hold_out
from .models import MODELS, TORCHVISION, find_model
from .options import option
from .photographs import are_photographs
from .study_data import FORMS, is_regression, is_table
from .tasks import slug
from .train import Recipe

DEFAULT_SCORES: Final = ("el2n", "aum", "forgetting", "vog_loss")
SCORES_TO_ASK_FOR: Final = score_names(*TRACKED, "late logits")
_LABELLED: Final = ("table:", "datasets:")
REGRESSION_SCORES: Final = ("loss", "vog_loss")
ALL_REGRESSION_SCORES: Final = ("loss", "recent_loss", "vog_loss")
PER_CLASS_POLICY: Final = "hardest-per-class"
LARGEST_SEED: Final = 2**62  # leaves room to count up: PyTorch takes seeds below 2**64
MOST_SEEDS: Final = 30
WITHOUT_WRONG: Final = "without-wrong"  # draws from what is not likely mislabelled, which the runs tell
DEFAULT_POLICIES: Final = (WITHOUT_WRONG, "stratified", "soft")
WRONG_LABEL_SCORES: Final = ("margin", "aum")  # by which a study tells what is likely mislabelled
FIRST_COMPARISON_SEED: Final = 1000  # after the study's: so many scoring runs per model nobody trains
POLICIES: Final[dict[str, Callable[[float], Policy]]] = {
    "hardest": Hardest,
    "easiest": Easiest,
    "window": lambda keep: Window(start=min(0.1, 1 - keep), keep=keep),
    "hardest-per-class": lambda keep: PerClass(Hardest(keep)),
    "stratified": Stratified,
    "soft": SoftPrune,
    "importance": lambda keep: Importance(keep=keep),
    "random": Random,
}
"""By name, of which one plan says what they keep."""
IN_EPOCHS: Final[dict[str, Callable[[float], Policy]]] = {
    "easy-to-hard": EasyToHard,
    "review": lambda keep: Review(keep, gap=max(10, math.ceil(2 / keep))),
}
"""Those that keep others in each epoch, for a training, and not for a plan."""


@dataclass(frozen=True)
class Settings:
    """What `difficulty-prune study` is asked to do: a field for each of its options.

    Raises:
        TypeError, ValueError: a value that cannot work, or one that is given twice.
    """

    data: str = field(default="digits", metadata=option(FORMS, metavar="DATA", offer=complete_data))
    test: str | None = field(
        default=None,
        metadata=option(
            "test data; default: the data's own, else a fifth set aside", metavar="DATA", offer=complete_data
        ),
    )
    label: str | None = field(
        default=None,
        metadata=option("the column of a table or of datasets:DIR that holds the labels", metavar="COLUMN", offer=()),
    )
    regression: bool = field(
        default=False,
        metadata=option(
            "predict the label of a table as a number, by the squared error; sklearn:diabetes does so anyway",
            action="store_true",
        ),
    )
    models: tuple[str, ...] = field(
        default=(),
        metadata=option(
            f"{', '.join(MODELS)}, torchvision:NAME or your.module:function; default: cnn, for digits mlp too, for "
            "tables mlp",
            flag="--model",
            nargs="+",
            metavar="NAME",
            offer=MODELS,
        ),
    )
    runs: int = field(default=4, metadata=option("scoring runs per model", type=int))
    epochs: int | None = field(
        default=None,
        metadata=option("epochs of every training; default: 12 for digits, 30 for tables, else 10", type=int),
    )
    batch_size: int | None = field(
        default=None,
        metadata=option(
            "examples in a batch; default: 128; 64 for digits and for --size above 96; 32 for tables", type=int
        ),
    )
    lr: float | None = field(
        default=None,
        metadata=option(
            "the highest learning rate of the cycle; default: 0.2; 0.1 for tables and for --size above 96; 0.01 for "
            "numbers to predict",
            type=float,
            metavar="RATE",
        ),
    )
    no_augment: bool = field(
        default=False,
        metadata=option("train on the images as they are, without random cuts, shifts and flips", action="store_true"),
    )
    scores: tuple[str, ...] = field(
        default=DEFAULT_SCORES,
        metadata=option(
            f"the first one prunes; {', '.join(SCORES_TO_ASK_FOR)}",
            nargs="+",
            metavar="SCORE",
            offer=SCORES_TO_ASK_FOR,
        ),
    )
    keep: tuple[float, ...] = field(
        default=(0.7,),
        metadata=option("fractions of examples to keep; none: only score", nargs="*", type=float, metavar="SHARE"),
    )
    policies: tuple[str, ...] = field(
        default=(),
        metadata=option(
            f"{WITHOUT_WRONG}, {', '.join((*POLICIES, *IN_EPOCHS))}; default: {', '.join(DEFAULT_POLICIES)}; random is "
            "always there",
            flag="--policy",
            nargs="+",
            metavar="POLICY",
            offer=(WITHOUT_WRONG, *POLICIES, *IN_EPOCHS),
        ),
    )
    seeds: int = field(
        default=5, metadata=option("trainings of each kind that are compared, seed by seed", type=int, metavar="N")
    )
    until: float | None = field(
        default=None,
        metadata=option(
            f"add seeds, up to {MOST_SEEDS}, until differences to chance are known to so many points: the width of the "
            "interval, such as 0.5; of numbers to predict, in units of the test loss",
            type=float,
            metavar="POINTS",
        ),
    )
    hold_out: float = field(
        default=0.0,
        metadata=option(
            "fraction of examples that each scoring run leaves out, different ones each time; shows memorization",
            type=float,
            metavar="SHARE",
        ),
    )
    out: Path = field(
        default=Path("study"),
        metadata=option("where results go; finished trainings there are reused", type=Path, metavar="DIR"),
    )
    seed: int = field(default=0, metadata=option("of the first run; the others count up", type=int))
    workers: int | None = field(
        default=None,
        metadata=option(
            "trainings at a time; default: one per core (two cores if images are read from files), one on a GPU",
            type=int,
            metavar="W",
        ),
    )
    executor: str | None = field(
        default=None,
        metadata=option(
            f"{FORM} of a Dask scheduler, whose workers train; default: processes of this machine", metavar="WHERE"
        ),
    )
    size: int | None = field(
        default=None,
        metadata=option(
            "bring images to so many pixels a side; above 96 workers cut them out of the files in every epoch, never "
            "all in memory; default: as they are",
            type=int,
        ),
    )
    plant_wrong: float = field(
        default=0.0,
        metadata=option(
            "fraction of the training labels to make wrong, at random by the seed, to see whether they are found",
            type=float,
            metavar="SHARE",
        ),
    )

    def __post_init__(self) -> None:
        self._take_simpler_forms()
        self._check_regression()
        recorded(self.scores)  # or an error
        for keep in self.keep:
            check_fraction(keep, "keep")
        for name in self.policies:
            if name not in (WITHOUT_WRONG, *POLICIES, *IN_EPOCHS):
                known = ", ".join((WITHOUT_WRONG, *POLICIES, *IN_EPOCHS))
                raise ValueError(f"policy: got {name!r}, expected one of {known}")
            if name == WITHOUT_WRONG and not self.tells_wrong:
                raise ValueError(
                    f"policy: {WITHOUT_WRONG} needs margin or aum among the scores, which tell what is likely "
                    f"mislabelled; got {', '.join(self.scores)}"
                )
        if self.seeds < 2:
            raise ValueError(f"seeds: got {self.seeds}, expected 2 or more, better 5: one shows no spread")
        if self.until is not None and not self.until > 0:
            raise ValueError(f"until: got {self.until}, expected points above 0")
        if self.label is not None and not self.data.startswith(_LABELLED):
            raise ValueError(
                f"label: got {self.label!r} for {self.data}, which knows its labels: leave --label out; it goes with "
                "--data table:FILE and datasets:DIR"
            )
        for name in self.models:
            _check_model(name)
        for key, value in (
            ("runs", self.runs),
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("workers", self.workers),
            ("size", self.size),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{key}: got {value}, expected at least 1")
        if self.batch_size == 1:
            raise ValueError("batch_size: got 1, expected 2 or more: batch norm needs two examples")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"lr: got {self.lr}, expected a learning rate above 0, such as 0.1")
        if not 0 <= self.seed < LARGEST_SEED:
            raise ValueError(f"seed: got {self.seed}, expected 0 or more, and less than 2**62")
        check_hold_out(self.hold_out, self.runs)
        if isinstance(self.plant_wrong, bool) or not 0 <= self.plant_wrong < 1:
            raise ValueError(f"plant_wrong: got {self.plant_wrong}, expected a fraction of the labels, in [0, 1)")
        if self.executor is not None and cluster_address(self.executor) and self.workers is not None:
            raise ValueError(f"workers: got {self.workers}, but {self.executor} has its own; leave one of them out")
        self._check_windows()
        needs_halves(self.scores, self.recipe.epochs)  # or an error
        self._check_no_repeats()
        self._check_policies()

    def _take_simpler_forms(self) -> None:
        """A folder as text, and one value or a list where there may be several."""
        object.__setattr__(self, "out", Path(self.out))
        for name in ("models", "scores", "keep", "policies"):
            given = getattr(self, name)
            single = isinstance(given, str | Real)
            object.__setattr__(self, name, (given,) if single else tuple(given))

    def _check_regression(self) -> None:
        if self.regression and not self.data.startswith("table:") and not is_regression(self.data):
            raise ValueError(
                f"regression: got it for {self.data}, expected --data table:FILE or sklearn:diabetes with it; classes "
                "are predicted without --regression"
            )
        if not is_regression(self.data_specs[0]):
            return
        if self.scores == DEFAULT_SCORES:
            object.__setattr__(self, "scores", REGRESSION_SCORES)  # a frozen dataclass, which nobody has seen yet
        unknown = [name for name in self.scores if name not in ALL_REGRESSION_SCORES]
        if unknown:
            raise ValueError(
                f"scores: got {unknown[0]!r}, expected {' or '.join(ALL_REGRESSION_SCORES)}: the others are of classes"
            )
        if PER_CLASS_POLICY in self.policies:
            raise ValueError(f"policy: got {PER_CLASS_POLICY!r}, but there are no classes where numbers are predicted")

    def _check_windows(self) -> None:
        in_windows, window = [name for name in self.scores if name in TEMPORAL], TemporalOptions().window
        if in_windows and self.recipe.epochs < window:
            raise ValueError(
                f"epochs: got {self.recipe.epochs}, expected at least {window}: {in_windows[0]} looks at windows of "
                f"{window} epochs"
            )

    def _check_no_repeats(self) -> None:
        """ValueError for two values that are equal, or whose results would have the same file name."""
        _check_distinct("model", self.models, slug)
        _check_distinct("scores", self.scores, str)
        _check_distinct("policy", self.policies, str)
        _check_distinct("keep", self.keep, "{:g}".format)

    def _check_policies(self) -> None:
        """ValueError for a policy that cannot be made with one of the shares to keep."""
        for name in (name for name in self.policies if name != WITHOUT_WRONG):
            for keep in self.keep:
                try:
                    policy_by_name(name, keep)
                except (TypeError, ValueError) as error:
                    raise ValueError(f"policy: {name!r} cannot be made with keep {keep}: {error}") from error

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models; by default a CNN, for the small digits an MLP as well, and for tables an MLP alone."""
        usual = ("cnn", "mlp") if self.data == "digits" else ("mlp",) if is_table(self.data) else ("cnn",)
        return self.models or usual

    @property
    def data_specs(self) -> tuple[str, str | None]:
        """The training data and the test data as one text each, with the column of the labels."""
        return self._with_label(self.data), None if self.test is None else self._with_label(self.test)

    def _with_label(self, spec: str) -> str:
        named = f"{spec}#{self.label}" if self.label is not None and spec.startswith(_LABELLED) else spec
        return named.replace("table:", "regression:", 1) if self.regression else named

    @property
    def policy_names(self) -> tuple[str, ...]:
        """The policies, without random, which is always compared with; by default those that it pays to know of."""
        known = self.policies or tuple(name for name in DEFAULT_POLICIES if name != WITHOUT_WRONG or self.tells_wrong)
        return tuple(dict.fromkeys(known))

    @property
    def log(self) -> Path:
        """The file in which lines say how far the study is."""
        return self.out / "study.log"

    @property
    def tells_wrong(self) -> bool:
        """Whether the scores tell what is likely mislabelled."""
        return not set(WRONG_LABEL_SCORES).isdisjoint(recorded(self.scores))

    @property
    def most(self) -> int:
        """The largest number of seeds."""
        return max(MOST_SEEDS, self.seeds)

    @property
    def scoring_seeds(self) -> range:
        """The seeds of a model's scoring runs."""
        return range(self.seed, self.seed + self.runs)

    @property
    def comparison_seeds(self) -> range:
        """The seeds of every training that is compared, none of which is that of a scoring run; `until` adds more."""
        first = self.seed + FIRST_COMPARISON_SEED
        return range(first, first + self.seeds)

    @property
    def recipe(self) -> Recipe:
        """How every model is trained: the few digits in smaller batches and for more epochs."""
        usual = Recipe(epochs=10)
        if self.data == "digits":
            usual = Recipe(epochs=12, batch_size=64)
        elif is_table(self.data):
            # The squared error has no bound: at 0.05 trainings on sklearn:diabetes diverged.
            rate = 0.01 if is_regression(self.data_specs[0]) else 0.1
            usual = Recipe(epochs=30, batch_size=32, learning_rate=rate)
        elif are_photographs(self.size):  # whose activations take much memory
            usual = Recipe(epochs=10, batch_size=64, learning_rate=0.1)
        asked = {"epochs": self.epochs, "batch_size": self.batch_size, "learning_rate": self.lr}
        given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        return replace(usual, augment=not self.no_augment, **given)


def _check_model(name: str) -> None:
    try:
        find_model(name)
    except ValueError as error:
        try:  # here and not in models.py, whose source every result knows its model by
            find_model(f"{TORCHVISION}{name}")
        except (ImportError, ValueError):  # torchvision may not import beside this PyTorch
            raise error from None
        raise ValueError(f"{error}; for torchvision's say {TORCHVISION}{name}") from error


def policy_by_name(name: str, keep: float) -> Policy:
    """One of `POLICIES` or `IN_EPOCHS`."""
    return (POLICIES | IN_EPOCHS)[name](keep)


def _check_distinct(name: str, values: Iterable[Any], file_name: Callable[[Any], str]) -> None:
    taken: dict[str, Any] = {}
    for value in values:
        part = file_name(value)
        if part in taken and taken[part] == value:
            raise ValueError(f"{name}: got {value!r} twice, expected each one once")
        if part in taken:
            raise ValueError(
                f"{name}: got {taken[part]!r} and {value!r}, whose results would have the same file name, with "
                f"{part!r} in it; leave one out"
            )
        taken[part] = value
