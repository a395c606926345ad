"""Running a study: jobs train the cells, and the measurements and the report follow."""

STEP_NAMES = ("costs", "speed", "features", "report")
"""The steps that follow the cells, in their order."""
