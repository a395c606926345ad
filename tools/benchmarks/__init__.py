"""The parts of the benchmark: each module measures one kind of work and tells its results in tables."""
