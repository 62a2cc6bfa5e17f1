"""What the rows of the table are called."""

# whole steps, in milliseconds; the bare one is the backbone with its projector and the optimiser, on ready views
BARE = "bare backbone"
WITHOUT = "step without GH"
EXACT = "step with GH (exact)"
STREAMING = "step with GH (streaming)"

# parts of a step, in milliseconds
LOADER = "loader"
VIEWS = "views"
METHOD = "method, on ready views"
GH_LOSS = "GH's loss and gradient"
GH_LOSS_TRAINED = "the same at 30 Sinkhorn iterations"
GH_MEMORY = "GH's memory (exact)"
GH_COUNTS = "GH's memory (streaming)"
PRIOR = "pi recomputed (exact)"
SINKHORN = "Sinkhorn alone"

CEILING = "a large bf16 product"  # what the hardware can do

# shares of the step with GH and exact population, in percent
GH_SHARE = "GH, step against step"
GH_PARTS_SHARE = "GH, by its parts"
GH_TRAINED_SHARE = "GH, by its parts, at 30 iterations"
VIEWS_SHARE = "views' share"
BESIDE_SHARE = "all beside the backbone"

ITERATIONS = "Sinkhorn iterations"

# of the framework, in one step
OPERATIONS_WITHOUT = "operations, step without GH"
OPERATIONS_WITH = "operations, step with GH"
OPERATIONS_GH = "operations, GH at 10 iterations"
OPERATIONS_GH_TWICE = "operations, GH at twice the images and batch"
OPERATIONS_ITERATION = "operations, one iteration"
