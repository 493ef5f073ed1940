import jax

from gradatim.lab.draws import host_generator


def test_every_key_has_numbers_of_its_own():
    keys = [jax.random.key(0), jax.random.key(1), jax.random.key(2**31), *jax.random.split(jax.random.key(0), 3)]
    draws = {tuple(host_generator(key).integers(2**32, size=4).tolist()) for key in keys}
    assert len(draws) == len(keys)
    assert tuple(host_generator(keys[1]).integers(2**32, size=4).tolist()) in draws
