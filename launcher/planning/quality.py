"""Ranks quantisations by their published figures, or by size where there are none. Pure."""

from collections.abc import Mapping
from statistics import fmean

from launcher.settings.family import PublishedQuantization

QUALITY_NOISE = 0.01  # of the mean NDCG@5: 5 sets of 50 questions each cannot distinguish less
SET_LOSS = 0.05  # losing more than this on one set counts as worse, whatever the other sets gain
FOUR_BITS = 0.27  # of the unquantised file: below this, vectors move more than those sets show
EIGHT_BITS = 0.5  # of the largest file
SPEED_NOISE = 0.08  # of tokens/s: among Q4, Q5 and IQ3 the order follows neither size nor type


def quality_order(published: Mapping[str, PublishedQuantization]) -> tuple[tuple[str, ...], ...]:
    """Classes of equal quality, best first; each class in order of preference.

    The first class has those whose mean NDCG@5 is within QUALITY_NOISE of the best mean, that lose no more than
    SET_LOSS on any set against the largest file (the unquantised weights), and that have four bits a weight. The others
    follow in classes of QUALITY_NOISE by their mean. Within a class the fast ones come first (within SPEED_NOISE of the
    class's fastest), then the larger ones, which are nearer to the original weights; where a smaller one gains anything
    (longer texts, one more model that stays loaded), `launcher.planning.placement` chooses it for that.
    """
    if not published:
        return ()
    original = max(published.values(), key=lambda one: one.file_gib)
    mean = {name: fmean(one.ndcg_at_5) for name, one in published.items()}
    large = [name for name, one in published.items() if one.file_gib >= FOUR_BITS * original.file_gib]
    good = [name for name in large if _loss(published[name].ndcg_at_5, original.ndcg_at_5) <= SET_LOSS]
    best = max(mean[name] for name in good)
    classes = [[name for name in good if mean[name] >= best - QUALITY_NOISE]]
    rest = sorted(published.keys() - set(classes[0]), key=lambda name: -mean[name])
    for name in rest:
        if len(classes) == 1 or mean[name] < mean[classes[-1][0]] - QUALITY_NOISE:
            classes.append([])
        classes[-1].append(name)
    return tuple(_preferred(one, published) for one in classes)


def by_size(file_bytes: Mapping[str, int]) -> tuple[tuple[str, ...], ...]:
    """Classes without published figures, best first: the largest file is closest to the original's weights.

    The first class has those of at least half the bits: rounding to eight moves vectors less than another engine does.
    F32 only if there is nothing else, because the originals are 16 bits wide.
    """
    names = [name for name in file_bytes if name.upper() != "F32"] or list(file_bytes)
    names.sort(key=lambda name: -file_bytes[name])
    first = tuple(name for name in names if file_bytes[name] >= EIGHT_BITS * file_bytes[names[0]])
    return ((first,) if first else ()) + tuple((name,) for name in names[len(first) :])


def _loss(scores: tuple[float, ...], original: tuple[float, ...]) -> float:
    return max(1 - score / reference for score, reference in zip(scores, original, strict=True))


def _preferred(names: list[str], published: Mapping[str, PublishedQuantization]) -> tuple[str, ...]:
    fastest = max(published[name].tokens_per_s for name in names)

    def order(name: str) -> tuple[bool, float]:
        one = published[name]
        return one.tokens_per_s < (1 - SPEED_NOISE) * fastest, -one.file_gib

    return tuple(sorted(names, key=order))
