"""Every test runs with the shapes and types of the package's signatures checked (users pay nothing for them)."""

from jaxtyping import install_import_hook

# all but the command line, whose signatures are read by typer, not called by people
CHECKED = (
    "ops",
    "nn",
    "gh",
    "methods",
    "data",
    "metrics",
    "engine",
    "recipes",
    "report",
    "reproduce",
    "bench",
    "rundir",
    "errors",
)
install_import_hook([f"evensphere.{part}" for part in CHECKED], "signature_checks.typechecked")
