"""Recording what a network computes: by the dispatcher, or by torch.export."""
