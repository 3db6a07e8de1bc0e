"""The rules of the protocol, each of which can be turned off."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules that the parts keep, by their number in docs/decisions/0007-cluster-protocol.md."""

    # 1 Order
    told_in_order: bool = True  # a command is reported when it and every earlier one are confirmed
    only_the_next: bool = True  # the store applies only last + 1; else: anything above the highest it has seen
    lower_is_skipped: bool = True  # an applied delivery is not applied again
    channel_is_closed: bool = True  # a shard is given up by closing; else: cancel the consumer, then send back
    # 2 Doubt
    new_name: bool = True  # after a doubt the publisher continues under a new name
    # 3 Epochs
    data_set: bool = True  # the data set that shows a post must be the one that the generation names
    number_names_set: bool = True  # the data set that gave the number must be that one too
    generation: bool = True  # keys begin with a generation; else: another data set is simply used
    lease: bool = True  # a generation waits for processes that may still answer from the one before
    says_what_it_holds: bool = True  # a process reports a generation only after it has begun to use it
    waits_from_its_making: bool = True  # LEASE counts also from when the generation was made, or the store came back
    only_prolongs: bool = True  # while the store answers nobody, only a lease that is not over is prolonged
    reads_are_vouched: bool = True  # a read from a Redis that is not vouched for is marked as lagging
    # 4 Late words
    gone_stays_gone: bool = True  # only ``number`` and ``seed`` make entries
    newer_stays: bool = True  # a change is shown only over an older one
    notes_are_needed: bool = True  # without an entry, a change is shown only if it has a note
    note_only_makes: bool = True  # with an entry, a change needs no note, only a higher order
    floor_moves_beside: bool = True  # entries that the floor passes and the store may lack are moved beside
    # 5 One order of changes
    one_order: bool = True  # the store applies a change only over a lower order
    delete_is_final: bool = True  # a delete is applied and shown whatever came before it
    order_names_epoch: bool = True  # orders of a later epoch are higher than all orders of an earlier one
    order_then_read: bool = True  # a message is read after the change of it has its order
    # 6 Opening
    announced: bool = True  # a chat is seeded only while it is announced
    marker_names_set: bool = True  # and in the data set that it was announced in
    marker_of_newest: bool = True  # (c) is done only for a marker of the newest generation
    two_steps: bool = True  # a chat is seeded as pending, and live once the store has its epoch as the live one
    other_ends_opening: bool = True  # a command applied between (a) and (c) ends the opening
    older_posts_aside: bool = True  # a post of an older epoch than the live one is set aside
    older_changes_aside: bool = True  # and so is a change
    pending_is_not_read: bool = True  # for readers, a pending chat has no hash
    # 7 Keys and numbers
    place_first: bool = True  # a place in the queue is held before a number is taken
    gives_back: bool = True  # a post that is refused after it took a number gives it back
    shared_is_kept: bool = True  # unless another try of the same key got it too
    look_expires: bool = True  # a look into the store counts for a while, by Redis' clock
    look_names_epoch: bool = True  # and only in the epoch it was made in
    key_is_kept: bool = True  # a key's entry stays for a while after it is stored
    # 8 Redis may answer anything
    error_is_refusal: bool = True  # a post that could not be shown is a 503
    # 9 The database may answer anything
    tries_again: bool = True  # after a temporary error the batch is tried again; else: it is set aside
    bisects: bool = True  # a command at fault is set aside alone; else: with its batch
    # 10 Nothing dies silently
    dies_loudly: bool = True  # an unexpected end of a task ends its process


ALL = Rules()
