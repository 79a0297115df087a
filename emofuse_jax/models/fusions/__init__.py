"""One file a fusion; `registry.FUSIONS` names them."""
