"""Stage pretrain: the base network. Its engine is the training loop in `pipeline.training`."""
