import numpy as np
import pytest

from gradatim.transport import SHEPP_LOGAN, draw_ellipses, project_ellipses, random_ellipses


def test_the_head_has_its_known_densities():
    head = draw_ellipses(SHEPP_LOGAN, 101, samples=1)
    # Outside, skull, brain, left and right ventricle, and the large bright disc, from Toft's table.
    for (right, up), density in {
        (0.0, -0.99): 0.0,
        (0.0, 0.9): 1.0,
        (0.45, 0.1): 0.2,
        (-0.22, 0.0): 0.0,
        (0.22, 0.0): 0.0,
        (0.0, 0.4): 0.3,
    }.items():
        assert head[round((1 - up) * 50), round((1 + right) * 50)] == pytest.approx(density, abs=1e-6), (right, up)


def test_trap_a_finer_grid_has_the_same_image():
    tables = random_ellipses(3, seed=0)
    fine = draw_ellipses(tables, 32, samples=1)
    np.testing.assert_allclose(fine.reshape(3, 16, 2, 16, 2).mean((2, 4)), draw_ellipses(tables, 16, samples=2), atol=1e-6)


def test_projections_have_the_mass_and_the_place_of_the_ellipses():
    tables = random_ellipses(4, seed=1)
    places = np.linspace(-1.5, 1.5, 20_001)
    angles = np.array([0.0, 0.7, np.pi / 2])
    views = project_ellipses(tables, angles, places)
    mass = (np.pi * tables[..., 0] * tables[..., 1] * tables[..., 2]).sum(axis=1)
    step = places[1] - places[0]
    np.testing.assert_allclose(views.sum(axis=-1) * step, np.broadcast_to(mass[:, None], (4, 3)), rtol=1e-4)
    centre = (np.pi * tables[..., 0] * tables[..., 1] * tables[..., 2])[..., None] * tables[..., 3:5]
    expected = centre.sum(axis=1) @ np.stack([np.cos(angles), np.sin(angles)])
    np.testing.assert_allclose((views * places).sum(axis=-1) * step, expected, atol=1e-4)


def test_random_heads_are_functions_of_their_seed_and_mostly_inside_the_range():
    images = draw_ellipses(random_ellipses(300, seed=2), 16)
    assert len(images) == 300 and (images[:, 0, 0] == 0).all()
    assert np.mean((images < -0.05) | (images > 1.05)) < 0.02 and images.std(axis=0).max() > 0.1
    np.testing.assert_array_equal(random_ellipses(2, seed=3), random_ellipses(2, seed=3))
    assert not np.array_equal(random_ellipses(2, seed=3), random_ellipses(2, seed=4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: random_ellipses(-1, seed=0), "must be at least 0, got -1 and 6"),
        (lambda: draw_ellipses(SHEPP_LOGAN, 0), "side and samples must be at least 1, got 0 and 2"),
    ],
)
def test_counts_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
