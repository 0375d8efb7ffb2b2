"""The smallest net that has each topology, with the exact number of units per prunable group.

Every net ends in a head whose rows are the model output and therefore frozen.
"""

# importing a file registers its networks
import joined_nets  # noqa: F401
import layer_nets  # noqa: F401
import moved_nets  # noqa: F401
import other_nets  # noqa: F401
from net_cases import CASES as CASES
