"""Every test runs with the shapes and types of the package's signatures checked (users pay nothing for them)."""

from jaxtyping import install_import_hook

install_import_hook("evensphere", "signature_checks.typechecked")
