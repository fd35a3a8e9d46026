"""Pictures, tables and pages of what the metrics found. Nothing here is needed to train or to vocode."""
