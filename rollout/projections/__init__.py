"""Events to rows. Each projection folds a batch of events, then writes its rows at once."""
