"""Who gets which slot, what is taken over from whom, and who waits."""

from __future__ import annotations

from ctllm_ray.inference.slots import WORTH_WAITING_TOKENS, Place, Slots

LONG = list(range(40))


def taken(slots: Slots, ids: list[int]) -> Place:
    place = slots.find(ids, len(ids) - 1)
    assert place is not None
    slots.take(place, ids)
    return place


def computed(slots: Slots, ids: list[int]) -> int:
    """A request that was computed and is gone; its slot."""
    slot = taken(slots, ids).slot
    slots.fill(slot, len(ids))
    slots.leave(slot)
    return slot


def test_a_new_sequence_takes_the_slot_that_was_left_first() -> None:
    slots = Slots(3, 64)
    assert [computed(slots, [n, 50]) for n in (1, 2, 3, 4)] == [0, 1, 2, 0]


def test_the_longest_shared_prefix_is_copied_and_its_donor_spared() -> None:
    slots = Slots(3, 64)
    short, long = computed(slots, [*LONG[:10], 63]), computed(slots, LONG)
    other = computed(slots, [60, 61])
    place = taken(slots, [*LONG[:30], 60])
    assert (short, long, other) == (0, 1, 2)
    assert place == Place(slot=0, source=1, tokens=30)


def test_a_donor_that_is_shared_whole_is_continued_where_it_lies() -> None:
    slots = Slots(3, 64)
    slot = computed(slots, LONG[:20])
    assert taken(slots, LONG) == Place(slot, slot, 20)


def test_the_last_token_is_always_computed_for_its_logits_are_needed() -> None:
    slots = Slots(2, 64)
    computed(slots, LONG)
    assert taken(slots, LONG).tokens == len(LONG) - 1


def test_a_donor_that_is_the_only_free_slot_is_overwritten_after_what_is_shared() -> None:
    slots = Slots(1, 64)
    computed(slots, LONG)
    assert taken(slots, [*LONG[:25], 60]) == Place(0, 0, 25)


def test_a_request_waits_for_a_prefix_that_another_one_is_computing_and_for_no_less() -> None:
    slots = Slots(3, 64)
    first = taken(slots, LONG)
    second = [*LONG[:30], 60]
    assert slots.find(second, 30) is None
    slots.fill(first.slot, 30 - WORTH_WAITING_TOKENS + 1)  # the rest is not worth waiting for
    assert slots.find(second, 30) == Place(1, first.slot, 30 - WORTH_WAITING_TOKENS + 1)


def test_nobody_waits_for_a_request_that_was_cancelled() -> None:
    slots = Slots(2, 64)
    first = taken(slots, LONG)
    slots.fill(first.slot, 8)
    slots.leave(first.slot)
    place = slots.find([*LONG[:30], 60], 30)
    assert place == Place(first.slot, first.slot, 8)


def test_there_is_no_place_while_all_slots_are_held() -> None:
    slots = Slots(1, 64)
    taken(slots, [1, 2])
    assert slots.find([3, 4], 1) is None
    assert (slots.free, slots.used_tokens) == (0, 0)
    slots.fill(0, 2)
    assert slots.used_tokens == 2


def test_tokens_that_an_answer_added_are_shared_too() -> None:
    slots = Slots(2, 64)
    slot = taken(slots, [1, 2]).slot
    slots.append(slot, [1, 2, 3])
    slots.fill(slot, 3)
    slots.leave(slot)
    assert taken(slots, [1, 2, 3, 4]) == Place(slot, slot, 3)


def test_a_slot_that_holds_the_shared_prefix_itself_is_taken_without_a_copy() -> None:
    slots = Slots(3, 64)
    assert [computed(slots, ids) for ids in ([*LONG[:30], 60], [*LONG[:30], 61], [63])] == [0, 1, 2]
    assert taken(slots, [*LONG[:30], 62]) == Place(slot=1, source=1, tokens=30)
