import numpy as np
import pytest

from sr_transformers.scaling.laws.forms import LAWS, law_named, log_sum_exp

PARAMS = {
    "n": {"E": 4.9, "A": 5.0, "alpha": 0.121},
    "d": {"E": 4.9, "B": 50.0, "beta": 0.3},
    "joint": {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37},
    "kaplan": {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37},
    "repeated": {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37, "R_D": 15.0, "R_N": 5.0},
    "power": {"A": 9.0, "alpha": 0.05},
    "saturating": {"M_inf": 0.4, "A": 3.0, "alpha": 0.3},
}
COLUMNS = {
    "N": np.array([1e4, 1e6, 1e8, 1e9]),
    "D": np.array([1e6, 1e7, 3e7, 1e8]),
    "unique": np.array([1e6, 2e6, 1e6, 1e8]),
}


@pytest.mark.parametrize("name", LAWS)
def test_a_law_is_its_formula(name):
    p, n, d = PARAMS[name], COLUMNS["N"], COLUMNS["D"]
    if name == "repeated":
        u = COLUMNS["unique"]
        effective_d = u + u * p["R_D"] * (1 - np.exp(-(d / u - 1) / p["R_D"]))
        # U_N balances the two powers: alpha A / U_N^alpha = beta B / U^beta.
        feed = (p["alpha"] * p["A"] * u ** p["beta"] / (p["beta"] * p["B"])) ** (1 / p["alpha"])
        u_n = np.minimum(n, feed)
        effective_n = u_n + u_n * p["R_N"] * (1 - np.exp(-(n / u_n - 1) / p["R_N"]))
        expected = p["E"] + p["A"] / effective_n ** p["alpha"] + p["B"] / effective_d ** p["beta"]
        assert (u_n < n).any()
        assert (u_n == n).any()
    else:
        expected = {
            "n": lambda: p["E"] + p["A"] / n ** p["alpha"],
            "d": lambda: p["E"] + p["B"] / d ** p["beta"],
            "joint": lambda: p["E"] + p["A"] / n ** p["alpha"] + p["B"] / d ** p["beta"],
            "kaplan": lambda: (
                p["E"]
                + (p["A"] ** (1 / p["beta"]) / n ** (p["alpha"] / p["beta"]) + p["B"] ** (1 / p["beta"]) / d)
                ** p["beta"]
            ),
            "power": lambda: p["A"] / n ** p["alpha"],
            "saturating": lambda: p["M_inf"] - p["A"] / n ** p["alpha"],
        }[name]()
    assert LAWS[name].predict(p, COLUMNS) == pytest.approx(expected, rel=1e-12)


def test_the_forms_of_size_and_data_have_the_same_ends():
    """Endless data leave the term of size, an endless model that of data; between them kaplan is the lower one."""
    p, many = PARAMS["joint"], np.array([1e60, 1e8, 1e8])
    columns = {"N": many[[1, 0, 1]], "D": many[[0, 1, 1]]}
    joint, kaplan = (LAWS[name].predict(p, columns) for name in ("joint", "kaplan"))
    assert kaplan[:2] == pytest.approx(joint[:2], rel=1e-9)
    assert kaplan[2] < joint[2]


def test_data_that_do_not_repeat_are_worth_what_they_are():
    once = {"N": np.array([1e3]), "D": np.array([1e7]), "unique": np.array([1e7])}
    assert LAWS["repeated"].predict(PARAMS["repeated"], once) == pytest.approx(
        LAWS["joint"].predict(PARAMS["joint"], once), rel=1e-12
    )


@pytest.mark.parametrize("name", LAWS)
def test_coordinates_go_there_and_back(name):
    bound = LAWS[name].bind(COLUMNS)
    assert bound.decode(bound.encode(PARAMS[name])) == pytest.approx(PARAMS[name], rel=1e-9)


def assert_jacobian(function, place):
    """What a function returns second is the derivative of what it returns first."""
    _, jacobian = function(place)
    for index in range(len(place)):
        step = np.zeros_like(place)
        step[index] = 1e-6
        slope = (function(place + step)[0] - function(place - step)[0]) / 2e-6
        assert jacobian[:, index] == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", LAWS)
def test_straight_coordinates_go_there_and_back(name):
    bound = LAWS[name].bind(COLUMNS)
    theta = bound.encode(PARAMS[name])
    z = bound.straighten(theta)
    assert bound.bend(z)[0] == pytest.approx(theta, rel=1e-9)
    assert_jacobian(bound.bend, z)


def test_powers_that_leave_nothing_for_a_floor_are_nowhere():
    bound = LAWS["n"].bind(COLUMNS)
    z = bound.straighten(bound.encode(PARAMS["n"]))
    assert np.isnan(bound.bend(z + np.array([0, 5, 0]))[0]).all()


@pytest.mark.parametrize("name", LAWS)
def test_the_jacobian_is_the_derivative(name):
    bound = LAWS[name].bind(COLUMNS)
    assert_jacobian(bound.log_loss, bound.encode(PARAMS[name]))


def test_nothing_overflows():
    value, shares = log_sum_exp(np.array([[2000.0], [1999.0]]))
    assert value[0] == pytest.approx(2000 + np.log1p(np.exp(-1)))
    assert shares.sum() == pytest.approx(1)


def test_each_point_has_a_scale_of_its_own():
    value, shares = log_sum_exp(np.array([[2000.0, -2000.0], [1999.0, -2001.0]]))
    assert value == pytest.approx([2000 + np.log1p(np.exp(-1)), -2000 + np.log1p(np.exp(-1))])
    assert shares[0] == pytest.approx([1 / (1 + np.exp(-1))] * 2)


@pytest.mark.parametrize("kind", [np.float32, np.int64, list])
@pytest.mark.parametrize("name", LAWS)
def test_columns_of_any_kind_are_computed_in_float64(name, kind):
    rounded = {key: np.round(values / 4096) * 4096 + 4096 for key, values in COLUMNS.items()}  # float32 holds these
    given = {key: values.tolist() if kind is list else values.astype(kind) for key, values in rounded.items()}
    found = LAWS[name].predict(PARAMS[name], given)
    assert found.dtype == np.float64
    assert found == pytest.approx(LAWS[name].predict(PARAMS[name], rounded), rel=1e-13)


def fed_by_the_data(share):
    """The repeated law's loss where N is this multiple of what U = D can feed, and the loss of N itself."""
    p = PARAMS["repeated"]
    feed = (p["alpha"] * p["A"] * 1e6 ** p["beta"] / (p["beta"] * p["B"])) ** (1 / p["alpha"])
    columns = {"N": np.array([share * feed]), "D": np.array([1e6]), "unique": np.array([1e6])}
    data = p["E"] + p["B"] / 1e6 ** p["beta"]
    worth = share if share <= 1 else 1 + p["R_N"] * (1 - np.exp(-(share - 1) / p["R_N"]))
    found = LAWS["repeated"].predict(p, columns)[0]
    assert found == pytest.approx(data + p["A"] / (worth * feed) ** p["alpha"], rel=1e-12)
    return found, data + p["A"] / (share * feed) ** p["alpha"]


def test_parameters_just_beyond_what_the_data_can_feed_lose_a_little():
    for share in (0.5, 0.99):
        repeated, plain = fed_by_the_data(share)
        assert repeated == pytest.approx(plain, rel=1e-12)
    losses = [fed_by_the_data(share)[0] for share in (1.1, 1.5, 2.5, 20.0)]
    assert losses == sorted(losses, reverse=True)
    for share in (1.1, 1.5, 2.5, 20.0):
        repeated, plain = fed_by_the_data(share)
        assert repeated > plain


def test_a_wild_place_has_a_loss_and_a_slope():
    """Where an optimizer without bounds may look: repeats worth nothing or everything, parameters far beyond U_N."""
    bound = LAWS["repeated"].bind(COLUMNS)
    theta = bound.encode(PARAMS["repeated"])
    for place, value in ((5, 1000.0), (5, -1000.0), (6, 1000.0), (6, -1000.0), (1, -3000.0), (3, -1.0), (4, -1.0)):
        wild = theta.copy()
        wild[place] = value
        assert all(np.isfinite(part).all() for part in bound.log_loss(wild)), (place, value)
    p = PARAMS["repeated"]
    for log_r, effective in ((-1000.0, COLUMNS["unique"]), (1000.0, COLUMNS["D"])):
        wild = theta.copy()
        wild[5] = log_r
        size = np.exp(bound.log_loss(theta)[0]) - p["B"] / effective_data(p["R_D"]) ** p["beta"]
        expected = size + p["B"] / effective ** p["beta"]
        assert np.exp(bound.log_loss(wild)[0]) == pytest.approx(expected, rel=1e-6)


def effective_data(r_d):
    u = COLUMNS["unique"]
    return u + u * r_d * (1 - np.exp(-(COLUMNS["D"] / u - 1) / r_d))


def test_a_law_is_a_number_up_to_far_places_only():
    bound = LAWS["n"].bind(COLUMNS)
    assert np.isnan(bound.bend(np.array([1.0, 0.3, 0.3]))[0]).all()  # the power is all of the loss: log 0
    assert np.isfinite(bound.bend(np.array([1.0, 0.299, 0.3]))[0]).all()
    assert np.isfinite(bound.bend(np.array([50.0, -1.0, 0.0]))[0]).all()
    for far in (50.5, -50.5):
        assert np.isnan(bound.bend(np.array([far, -1.0, 0.0]))[0]).all()
    assert np.isnan(bound.bend(np.array([1.0, -50.5, 0.0]))[0]).all()


def test_a_floor_of_nothing_is_far_below_any_loss():
    bound = LAWS["n"].bind(COLUMNS)
    theta = bound.encode({**PARAMS["n"], "E": 0.0})
    assert theta[0] == pytest.approx(np.log(1e-300))
    assert LAWS["n"].predict({**PARAMS["n"], "E": 0.0}, COLUMNS) == pytest.approx(
        LAWS["power"].predict({name: PARAMS["n"][name] for name in ("A", "alpha")}, COLUMNS)
    )


@pytest.mark.parametrize("name", LAWS)
def test_every_parameter_is_of_one_kind(name):
    kinds = {
        **dict.fromkeys(("E", "M_inf"), "floor"),
        **dict.fromkeys(("A", "B"), "coefficient"),
        **dict.fromkeys(("alpha", "beta"), "exponent"),
        **dict.fromkeys(("R_D", "R_N"), "repeats"),
    }
    assert {one: LAWS[name].kind_of(one) for one in LAWS[name].names} == {one: kinds[one] for one in LAWS[name].names}


def test_limits_are_those_of_the_kinds():
    limits = LAWS["repeated"].bind(COLUMNS).limits(np.log([2.0, 8.0, 4.0]))
    floor, size, data, *rest = limits
    assert floor == pytest.approx((np.log(2) - 16, np.log(8)))
    assert size == data == pytest.approx((np.log(2) - 16, np.log(8) + 3))
    assert rest == [(0.001, 5.0)] * 2 + [(np.log(0.05), np.log(1e4))] * 2
    assert LAWS["power"].bind(COLUMNS).limits(np.log([2.0, 8.0])) == [size, (0.001, 5.0)]
    assert LAWS["joint"].bind(COLUMNS).limits(np.log([2.0, 8.0])) == limits[:5]


def test_an_unknown_law_is_named():
    with pytest.raises(ValueError, match="law 'cubic' is not known; choose from n, d, joint"):
        law_named("cubic")
