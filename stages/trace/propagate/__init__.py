"""Carrying labels through a recorded network: values, ties and reasons, the loop itself."""
