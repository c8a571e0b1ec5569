"""Clocks, machine, pictures: the ground a benchmark stands on."""

import time

import numpy as np
import pytest
import torch

from poise.benchmark import machine
from poise.benchmark.clock import NOTHING, Series, Spent, Stopwatch, Turn, no_product, take_turns
from poise.benchmark.machine import MatrixProduct, describe
from poise.benchmark.pictures import crowd, write_picture
from poise.data.images import read_image

CPU = torch.device("cpu")


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_stages_add_up_on_both_clocks():
    watch = Stopwatch(CPU)
    for _ in range(2):
        with watch.stage("work"):
            burn(0.02)
    with watch.stage("sleep"):
        time.sleep(0.02)
    assert watch.stages["work"].processor == pytest.approx(0.04, abs=0.015)
    assert watch.stages["work"].wall >= watch.stages["work"].processor - 0.005
    assert watch.stages["sleep"].wall >= 0.02
    assert watch.stages["sleep"].processor < 0.015


def test_tasks_take_turns_and_the_first_round_does_not_count():
    seen, steps = [], []

    def task(name):
        def run(watch):
            seen.append(name)
            watch.add("network", Spent(len(seen), len(seen)))
            watch.counts["found"] = len(seen)

        return run

    measured = take_turns({"a": task("a"), "b": task("b")}, no_product, 3, CPU, lambda: steps.append(1))
    assert seen == ["a", "b"] * 4
    assert len(steps) == 8
    assert [turn.stages["network"].wall for turn in measured["b"].turns] == [4, 6, 8]
    assert measured["b"].spent().wall == measured["b"].count("found") == 6
    assert measured["b"].count("candidates") is None


def test_shares_are_of_the_product_just_before():
    """A machine that gets slower changes both, not the ratio."""
    turns = [Turn({"network": Spent(4 * k, 2 * k), "draw": Spent(9, 9)}, {}, Spent(2 * k, 4 * k)) for k in (1, 5, 70)]
    series = Series(tuple(turns))
    assert series.of_product(["network"], "wall") == 2
    assert series.of_product(["network"], "processor") == 0.5
    assert series.of_product(["nothing of that name"], "wall") == 0
    assert series.names == ["network", "draw"]
    assert series.spent("network", "draw") == Spent(29, 19)


def test_only_times_are_added():
    assert Spent(1, 2) + Spent(3, 4) == Spent(4, 6)
    with pytest.raises(TypeError):
        NOTHING + 3


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_the_matrix_product_is_one(kind):
    product, watch = MatrixProduct(CPU, kind, side=96), Stopwatch(CPU)
    made = product(watch)
    assert product.macs == 96**3
    assert list(watch.stages) == ["product"]
    assert made.dtype == kind
    wanted = product._a.double() @ product._b.double()
    torch.testing.assert_close(made.double(), wanted, rtol=0.02, atol=0.2)


def test_the_quicker_product_counts(monkeypatch):
    ways = {"_product": 3.0, "_convolutions_product": 2.0}
    monkeypatch.setattr(machine, "_least_time", lambda way: ways[way.__name__])
    assert MatrixProduct(CPU, side=96)._way.__name__ == "_convolutions_product"
    ways["_product"] = 1.0
    assert MatrixProduct(CPU, side=96)._way.__name__ == "_product"
    monkeypatch.setattr(MatrixProduct, "_convolutions_product", lambda self: 2 * self._product())
    ways |= {"_product": 3.0, "<lambda>": 1.0}
    assert MatrixProduct(CPU, side=96)._way.__name__ == "_product"  # the other one is no product


def test_the_machine_is_described():
    told = describe(CPU)
    assert told["threads"] == torch.get_num_threads()
    assert told["processor"]
    assert "gpu" not in told


@pytest.mark.parametrize(("people", "size"), [(0, (64, 96)), (1, (64, 96)), (7, (96, 64)), (50, (480, 640))])
def test_so_many_people_stand_in_the_picture(people, size):
    made = crowd(people, size)
    assert made.image.shape == (*size, 3)
    assert made.image.dtype == np.uint8
    assert made.boxes.shape == (people, 4)
    assert (made.boxes >= 0).all()
    assert (made.boxes[:, 2:] < size[::-1]).all()
    covered = np.zeros(size, int)
    for x1, y1, x2, y2 in made.boxes.astype(int):
        covered[y1 : y2 + 1, x1 : x2 + 1] += 1
    assert covered.max(initial=0) <= 1
    rest = made.image[covered == 0].astype(float)
    assert rest.std() < 10
    if people:
        assert made.image[covered == 1].astype(float).std() > 40
    np.testing.assert_array_equal(made.image, crowd(people, size).image)


def test_people_get_all_the_room_there_is():
    one, many = (crowd(people, (480, 640)).boxes for people in (1, 50))
    heights = one[:, 3] - one[:, 1], many[:, 3] - many[:, 1]
    assert heights[0].max() > 470
    assert heights[1].min() > 75


def test_impossible_pictures_are_told():
    with pytest.raises(ValueError, match="cannot be made"):
        crowd(-1, (64, 64))


def test_pictures_are_written(tmp_path):
    image = crowd(1, (64, 96)).image  # its ground is noise, which JPEG does not keep
    back = read_image(write_picture(image, tmp_path / "a.jpg"))
    assert np.abs(back.astype(int) - image).mean() < 8
