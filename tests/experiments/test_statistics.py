import numpy as np
import pytest

from noisepilot.errors import UserError
from noisepilot.experiments import statistics as st

scipy_stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 50), (9, 10), (37, 100), (1000, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_is_scipys(k, n, level):
    theirs = scipy_stats.binomtest(k, n).proportion_ci(level, method="wilson")
    ours = st.wilson(k, n, level=level)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= ours.low <= ours.mean <= ours.high <= 1


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_what_is_no_rate(k, n):
    with pytest.raises(UserError, match="no rate"):
        st.wilson(k, n)


def test_bootstrap_is_scipys():
    x = np.random.default_rng(0).exponential(size=80)
    theirs = scipy_stats.bootstrap(
        (x,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    ours = st.bootstrap_mean(x)
    assert ours.mean == x.mean()
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_bootstrap_repeats_and_blocks_do_not_matter(monkeypatch):
    x = np.arange(30.0)
    whole = st.bootstrap_mean(x, seed=3)
    monkeypatch.setattr(st, "BLOCK", 1000)
    assert st.bootstrap_mean(x, seed=3) == whole
    assert st.bootstrap_mean(np.ones(5)) == st.Interval(1.0, 1.0, 1.0)


def test_bootstrap_covers():
    rng = np.random.default_rng(2)
    hits = [(i := st.bootstrap_mean(rng.normal(size=60), resamples=400)).low <= 0 <= i.high for _ in range(300)]
    assert 0.90 <= np.mean(hits) <= 0.98


@pytest.mark.parametrize(("gained", "lost", "same"), [(0, 0, 5), (3, 0, 1), (20, 8, 100), (400, 260, 3000)])
def test_mcnemar_is_the_binomial_test(gained, lost, same):
    a = np.r_[np.zeros(gained), np.ones(lost), np.ones(same)]
    b = np.r_[np.ones(gained), np.zeros(lost), np.ones(same)]
    theirs = scipy_stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert st.mcnemar(a, b) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("n", [6, 40])
def test_sign_flips_are_scipys(n):
    rng = np.random.default_rng(n)
    a = rng.normal(size=n)
    b = a + rng.normal(0.3, 1, size=n)
    theirs = scipy_stats.permutation_test(
        (b - a, np.zeros(n)),
        lambda x, y, axis: (x - y).mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).pvalue
    assert st.sign_flip_test(a, b) == pytest.approx(theirs, abs=1e-12 if n <= st.EXACT_PAIRS else 0.012)


def test_sign_flips_at_the_ends():
    same = np.ones(100)
    assert st.sign_flip_test(same, same) == 1.0
    assert st.sign_flip_test(same, same + 1, resamples=999) == pytest.approx(1 / 1000)


def test_paired_difference_uses_the_pairing():
    a = np.random.default_rng(0).normal(0, 100, 50)
    assert st.paired_difference(a, a + 1).high == pytest.approx(1.0)
    with pytest.raises(UserError, match="same seeds"):
        st.paired_difference(a, a[:-1])


@pytest.mark.parametrize("n", [1, 4, 10, 101])
def test_iqm_is_the_trimmed_mean(n):
    x = np.random.default_rng(n).normal(size=n)
    assert st.iqm(x) == pytest.approx(scipy_stats.trim_mean(x, 0.25))


def test_iqm_interval_redraws_within_tasks():
    # Runs agree within each task, tasks differ widely: only a stratified bootstrap has no spread.
    scores = np.tile(np.arange(8.0), (5, 1))
    assert st.iqm_interval(scores, resamples=50) == st.Interval(3.5, 3.5, 3.5)
    noisy = scores + np.random.default_rng(0).normal(size=scores.shape)
    interval = st.iqm_interval(noisy, resamples=500)
    assert interval.low < interval.mean < interval.high


def test_normalised_score():
    assert st.normalised_score(-20.272305, (-20.272305, 3234.3)) == 0
    assert st.normalised_score(3234.3, (-20.272305, 3234.3)) == pytest.approx(100)


def test_nothing_is_no_number():
    with pytest.raises(UserError, match="at least one"):
        st.bootstrap_mean(np.array([]))
    with pytest.raises(UserError, match="finite"):
        st.bootstrap_mean(np.array([1.0, np.nan]))
