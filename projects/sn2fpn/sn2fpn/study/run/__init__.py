"""Running a study: jobs train the cells, and the measurements and the report follow."""
