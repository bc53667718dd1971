"""Scores to and from the files of other tools, and what people decided there."""

from .aum import from_aum, to_aum
from .cartography import from_cartography, to_cartography
from .cleanlab import from_cleanlab, to_cleanlab
from .csv_table import from_csv, to_csv
from .fiftyone import from_fiftyone, to_fiftyone
from .formats import read, write
from .huggingface import to_huggingface
from .label_studio import from_label_studio, to_label_studio
from .npz import from_npz, to_npz
from .parquet import from_parquet, to_parquet
from .paths import to_paths
from .score_table import ScoreTable
from .spotlight import to_pandas, to_spotlight
from .weights import to_weights

__all__ = [
    "ScoreTable",
    "from_aum",
    "from_cartography",
    "from_cleanlab",
    "from_csv",
    "from_fiftyone",
    "from_label_studio",
    "from_npz",
    "from_parquet",
    "read",
    "to_aum",
    "to_cartography",
    "to_cleanlab",
    "to_csv",
    "to_fiftyone",
    "to_huggingface",
    "to_label_studio",
    "to_npz",
    "to_pandas",
    "to_parquet",
    "to_paths",
    "to_spotlight",
    "to_weights",
    "write",
]
