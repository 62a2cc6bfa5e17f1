"""How signatures are checked while tests run: an int is a float, as in ordinary type checking."""

from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
