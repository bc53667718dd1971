"""GraNd: the norm of each example's own loss gradient over all parameters."""
