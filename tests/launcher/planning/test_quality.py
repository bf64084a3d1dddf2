"""The order of the family's quantisations, by what was published of them."""

from launcher.planning.quality import quality_order
from launcher.settings.config import load
from launcher.settings.family import PublishedQuantization


def figures(mib: float, speed: float, *scores: float) -> PublishedQuantization:
    return PublishedQuantization(file_gib=mib, tokens_per_s=speed, ndcg_at_5=scores)


def test_the_family_s_own_order() -> None:
    published = load(None).family.weights.published
    assert published
    first, *rest = quality_order(published.quantizations)
    assert first[0] == "Q8_0"
    assert {"F16", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS"} < set(first)
    assert "IQ3_M" not in first  # three bits a weight
    assert [name for one in rest for name in one][-5:] == ["Q2_K", "Q3_K_M", "IQ2_XXS", "IQ1_M", "IQ1_S"]


def test_every_quantisation_on_offer_has_figures_on_every_benchmark() -> None:
    weights = load(None).family.weights
    assert weights.published
    assert set(weights.published.quantizations) == set(weights.quantizations)
    counts = {len(one.ndcg_at_5) for one in weights.published.quantizations.values()}
    assert counts == {len(weights.published.benchmarks)}


def test_equal_quality_is_ordered_by_speed_beyond_noise_and_then_by_size() -> None:
    published = {
        "slow": figures(8, 80, 0.60),
        "small": figures(3, 100, 0.599),
        "large": figures(4, 95, 0.601),
        "worse": figures(1, 100, 0.58),
    }
    assert quality_order(published) == (("large", "small", "slow"), ("worse",))


def test_a_loss_on_one_set_is_not_made_up_for_by_gains_on_another() -> None:
    published = {"F16": figures(8, 100, 0.6, 0.6), "lucky": figures(2, 100, 0.7, 0.5)}
    assert quality_order(published) == (("F16",), ("lucky",))
