"""Stage pretrain: the original network. Its engine is the loop in `pipeline.training`."""
