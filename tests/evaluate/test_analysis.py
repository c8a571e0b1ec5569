"""Errors put into perfect results are found, named and weighed; nothing else is."""

import numpy as np
import pytest

from poise.evaluate.analysis import KEYPOINT_KINDS, STEPS, UNLABELLED, analyse, best_scores, outscored
from poise.evaluate.coco import evaluate_results
from poise.skeletons import COCO17

K = len(COCO17)
NAMES = ("good", *KEYPOINT_KINDS)


def distance(k, similarity, area):
    """At which keypoint k of somebody of that area has this similarity."""
    return 2 * COCO17.sigmas[k] * np.sqrt(-2 * area * np.log(similarity))


class Crowd:
    """Pictures of two people of area 100 x 100, far apart, all keypoints of each far from one another."""

    def __init__(self, pictures=10):
        rng = np.random.default_rng(0)
        grid = np.array([(200 * (i % 5), 200 * (i // 5)) for i in range(K)], float)
        self.area = 10_000.0
        self.points = [grid + rng.uniform(0, 9, 2) + np.array([2000 * (i % 2), 0]) for i in range(2 * pictures)]
        self.images = [i // 2 for i in range(2 * pictures)]
        self.seen = np.full((2 * pictures, K), 2)
        self.pictures = pictures

    def truth(self):
        people = [
            {
                "id": i + 1, "image_id": image, "category_id": 1, "area": self.area, "iscrowd": 0,
                "keypoints": np.column_stack([points, seen]).reshape(-1).tolist(),
                "num_keypoints": int((seen > 0).sum()),
                "bbox": [*points.min(0).tolist(), *np.ptp(points, axis=0).tolist()],
            }
            for i, (image, points, seen) in enumerate(zip(self.images, self.points, self.seen, strict=True))
        ]  # fmt: skip
        category = {"id": 1, "name": "person", "keypoints": list(COCO17.keypoints)}
        images = [{"id": i, "file_name": f"{i}.png"} for i in range(self.pictures)]
        return {"images": images, "annotations": people, "categories": [category]}

    def results(self):
        """The truth, with falling scores."""
        return [
            {"image_id": image, "keypoints": self.triples(points), "score": 1 - i / 100}
            for i, (image, points) in enumerate(zip(self.images, self.points, strict=True))
        ]

    @staticmethod
    def triples(points):
        return np.column_stack([points, np.ones(len(points))]).reshape(-1).tolist()


def analysed(crowd, results):
    return analyse(evaluate_results(crowd.truth(), results))


def counts(analysis):
    return {name: sum(values) for name, values in analysis.table.items()}


def adds_up(analysis):
    total = analysis.precision.ap + sum(loss.lost for loss in analysis.losses) + analysis.imprecision
    return total == pytest.approx(1)


def test_perfect_results_have_no_errors():
    crowd = Crowd()
    analysis = analysed(crowd, crowd.results())
    assert counts(analysis) == {"good": 20 * K, "jitter": 0, "inversion": 0, "swap": 0, "miss": 0}
    assert [loss.count for loss in analysis.losses] == [0] * 7
    assert all(loss.lost == pytest.approx(0) for loss in analysis.losses)
    assert analysis.imprecision == pytest.approx(0)
    assert not np.concatenate([analysis.duplicates, analysis.background, analysis.missed]).any()
    assert adds_up(analysis)


@pytest.mark.parametrize(
    ("similarity", "kind"), [(0.86, "good"), (0.84, "jitter"), (0.51, "jitter"), (0.49, "miss"), (0.01, "miss")]
)
def test_the_classes_by_distance(similarity, kind):
    crowd = Crowd()
    results = crowd.results()
    for k in (0, 9, 11):
        moved = crowd.points[3].copy()
        moved[k] += (0, distance(k, similarity, crowd.area))
        results[3]["keypoints"] = crowd.triples(moved)
        analysis = analysed(crowd, results)
        assert analysis.table[kind][k] == (20 if kind == "good" else 1)
        assert sum(counts(analysis).values()) == 20 * K
        assert adds_up(analysis)


def spoil(crowd, kind, results, who):
    """Twelve wrong keypoints of one kind on some people."""
    flip = np.array(COCO17.flip_index)
    for i in who:
        points = crowd.points[i].copy()
        chosen = np.arange(5, K)
        if kind == "inversion":
            points[chosen] = crowd.points[i][flip][chosen]
        elif kind == "swap":
            points[chosen] = crowd.points[i ^ 1][chosen]
        else:
            similarity = 0.55 if kind == "jitter" else 0.2
            points[chosen, 1] += [distance(k, similarity, crowd.area) for k in chosen]
        results[i]["keypoints"] = crowd.triples(points)


@pytest.mark.parametrize("kind", KEYPOINT_KINDS)
def test_keypoint_errors_are_named_and_weighed(kind):
    crowd = Crowd()
    results = crowd.results()
    spoil(crowd, kind, results, range(0, 20, 4))
    analysis = analysed(crowd, results)
    wrong = 5 * (K - 5)
    assert counts(analysis) == {**dict.fromkeys(NAMES, 0), "good": 20 * K - wrong, kind: wrong}
    assert analysis.loss(kind).count == wrong
    lost = 1 - analysis.precision.ap
    assert lost > 0.05
    assert analysis.loss(kind).lost == pytest.approx(lost)
    assert analysis.loss(kind).alone.ap == pytest.approx(1)
    for other in STEPS:
        if other != kind:
            assert analysis.loss(other).lost == pytest.approx(0)
    assert {loss.count for loss in analysis.losses if loss.kind in KEYPOINT_KINDS} == {0, wrong}
    assert adds_up(analysis)


def test_a_swap_with_the_mirrored_keypoint_of_somebody_else():
    crowd = Crowd(1)
    results = crowd.results()
    points = crowd.points[0].copy()
    points[9] = crowd.points[1][10]
    results[0]["keypoints"] = crowd.triples(points)
    analysis = analysed(crowd, results)
    assert analysis.table["swap"][9] == 1
    assert counts(analysis)["good"] == 2 * K - 1


def test_unlabelled_keypoints_are_no_errors_and_attract_none():
    crowd = Crowd(1)
    crowd.seen[0, 9] = 0
    crowd.seen[1, 10] = 0
    results = crowd.results()
    points = crowd.points[0].copy()
    points[9] += 5000
    points[10] = crowd.points[1][10]
    results[0]["keypoints"] = crowd.triples(points)
    analysis = analysed(crowd, results)
    assert analysis.keypoints.classes[0, 9] == UNLABELLED
    assert counts(analysis) == {"good": 2 * K - 3, "jitter": 0, "inversion": 0, "swap": 0, "miss": 1}
    assert analysis.table["miss"][10] == 1


def test_missed_people():
    crowd = Crowd()
    analysis = analysed(crowd, crowd.results()[:15])
    assert analysis.missed.sum() == 5
    assert analysis.loss("missed person").count == 5
    assert analysis.loss("missed person").lost == pytest.approx(1 - analysis.precision.ap)
    assert analysis.precision.ap == pytest.approx(76 / 101)
    assert adds_up(analysis)
    everybody = analysed(crowd, [])
    assert everybody.loss("missed person").count == 20
    assert everybody.loss("missed person").lost == 1
    assert adds_up(everybody)


def test_false_positives_and_seconds_of_somebody():
    crowd = Crowd()
    nobody = [{"image_id": i, "keypoints": crowd.triples(crowd.points[0] - 9000), "score": 2.0} for i in range(4)]
    moved = crowd.points[6].copy()
    moved[:, 1] += [distance(k, 0.9, crowd.area) for k in range(K)]
    second = {"image_id": crowd.images[6], "keypoints": crowd.triples(moved), "score": 0.01}
    analysis = analysed(crowd, [*crowd.results(), *nobody, second])
    assert (analysis.background.sum(), analysis.duplicates.sum()) == (4, 1)
    loss = analysis.loss("false positive")
    assert loss.count == 5
    assert analysis.precision.ap < 0.9
    # without them nothing is left to be corrected, and ranking them last does as well
    assert loss.alone.ap == pytest.approx(1)
    assert analysis.loss("score").alone.ap == pytest.approx(1)
    assert counts(analysis)["good"] == 20 * K
    assert adds_up(analysis)


def test_scores_that_put_the_worse_pose_first():
    crowd = Crowd()
    results = crowd.results()
    for i in range(5):
        worse = crowd.points[i].copy()
        worse[:, 1] += [distance(k, 0.6, crowd.area) for k in range(K)]
        results.append({"image_id": crowd.images[i], "keypoints": crowd.triples(worse), "score": 2.0})
    evaluation = evaluate_results(crowd.truth(), results)
    analysis = analyse(evaluation)
    assert analysis.precision.ap50 < 1
    assert analysis.precision.ap75 < 0.9
    assert len(outscored(evaluation)) == analysis.loss("score").count == 5
    assert analysis.loss("score").alone.ap == pytest.approx(1)
    assert analysis.duplicates.sum() == 5
    assert counts(analysis)["jitter"] == 0, "the best pose of a person is looked at"
    assert adds_up(analysis)


def test_a_second_pose_of_somebody_is_not_a_bad_one_of_a_neighbour():
    crowd = Crowd(1)
    results = crowd.results()[:1]
    points = crowd.points[0].copy()
    points[:3] = crowd.points[1][:3]
    results.append({"image_id": 0, "keypoints": crowd.triples(points), "score": 0.1})
    analysis = analysed(crowd, results)
    assert analysis.duplicates.tolist() == [False, True]
    assert analysis.missed.tolist() == [False, True]
    assert counts(analysis) == {"good": K, "jitter": 0, "inversion": 0, "swap": 0, "miss": 0}
    # a pose that is like nobody else is somebody's, however bad
    points[3:] -= 9000
    results[1]["keypoints"] = crowd.triples(points)
    analysis = analysed(crowd, results)
    assert analysis.missed.tolist() == [False, False]
    assert counts(analysis) == {"good": K + 3, "jitter": 0, "inversion": 0, "swap": 0, "miss": K - 3}


def test_no_ranking_is_better_than_the_best_one():
    """All orders of a few poses, by brute force."""
    from itertools import permutations

    crowd = Crowd(1)
    rng = np.random.default_rng(5)
    results = []
    for i, similarity in ((0, 0.95), (0, 0.7), (1, 0.8), (1, 0.55), (0, 0.3)):
        points = crowd.points[i].copy()
        points[:, 1] += [distance(k, similarity, crowd.area) for k in range(K)]
        results.append({"image_id": 0, "keypoints": crowd.triples(points), "score": float(rng.random())})
    evaluation = evaluate_results(crowd.truth(), results)
    best = analyse(evaluation).loss("score").alone.ap
    reached = []
    for order in permutations(range(5)):
        ranked = [{**r, "score": float(s)} for r, s in zip(results, order, strict=True)]
        reached.append(evaluate_results(crowd.truth(), ranked).numbers["AP"])
    assert best == pytest.approx(max(reached))
    assert min(reached) < best - 0.2
    scores = best_scores(evaluation.truth, evaluation.found, evaluation.pairs)
    assert sorted(scores[scores > 0].round(3).tolist()) == [0.8, 0.95]


def test_ignored_people_are_neither_missed_nor_false():
    crowd = Crowd()
    truth = crowd.truth()
    for person in truth["annotations"][::2]:
        person["iscrowd"] = 1
    analysis = analyse(evaluate_results(truth, crowd.results()))
    assert not np.concatenate([analysis.duplicates, analysis.background, analysis.missed]).any()
    assert len(analysis.keypoints.poses) == 10
    assert analysis.precision.ap == pytest.approx(1)


def test_everything_at_once_adds_up_and_no_step_loses():
    crowd = Crowd(40)
    rng = np.random.default_rng(2)
    results = [r | {"score": float(rng.random())} for r in crowd.results() for _ in range(int(rng.integers(0, 3)))]
    for result in results:
        points = np.array(result["keypoints"]).reshape(-1, 3)
        points[:, :2] += rng.normal(0, 12 * rng.random(), (K, 2))
        if rng.random() < 0.3:
            points[5:] = points[list(COCO17.flip_index)][5:]
        result["keypoints"] = points.reshape(-1).tolist()
    results += [{"image_id": 0, "keypoints": crowd.triples(crowd.points[0] + 7777), "score": 0.9}] * 5
    analysis = analysed(crowd, results)
    assert all(loss.count > 0 for loss in analysis.losses if loss.kind not in ("swap",))
    assert all(loss.lost > -1e-9 for loss in analysis.losses)
    assert analysis.imprecision > 0
    assert adds_up(analysis)


def test_nobody():
    empty = {"images": [{"id": 1}], "annotations": [], "categories": Crowd(1).truth()["categories"]}
    nothing = analyse(evaluate_results(empty, []))
    assert nothing.precision.ap == nothing.imprecision == 0
    assert all((loss.count, loss.lost) == (0, 0) for loss in nothing.losses)
    found = analyse(evaluate_results(empty, [{"image_id": 1, "keypoints": [5.0] * 51, "score": 1}]))
    assert found.background.tolist() == [True]
