"""What each width of each group loses, measured once; and the plan of least loss for any budget."""

from stages.search.tables.loss_table import LossTable
from stages.search.tables.measure import RELATIVE, TOLERANCE, measure_table
from stages.search.tables.resize import resized
from stages.search.tables.solver import solve

CONSTANTS: dict[str, object] = {
    "table_tolerance": TOLERANCE,
    "table_relative_tolerance": RELATIVE,
}
"""What is no setting and yet shapes the result; kept in `search.json`."""

__all__ = ["CONSTANTS", "LossTable", "measure_table", "resized", "solve"]
