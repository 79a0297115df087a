"""One file an idea: `(outputs, batch, config) -> (sum, weight)`; `emofuse_jax.losses` names and adds them."""
