"""The rules of the protocol, each of which can be turned off."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """What the parts hold to. The number is that of the rule in docs/decisions/0007-cluster-protocol.md."""

    # 1 Order
    told_in_order: bool = True  # a command is reported when it and every earlier one are confirmed
    only_the_next: bool = True  # the store applies last + 1 alone; else: whatever is above the highest it has seen
    lower_is_skipped: bool = True  # what was applied before is not applied again
    channel_is_closed: bool = True  # a shard is given up by closing; else: cancel the consumer, then send back
    # 2 Doubt
    new_name: bool = True  # after a doubt the publisher goes on under a new name
    # 3 Epochs
    data_set: bool = True  # what a number is told from is compared with what the generation names
    number_names_set: bool = True  # also what gave the number is compared, not only what showed it
    generation: bool = True  # keys begin with a generation; else: another data set is simply gone on with
    lease: bool = True  # a generation waits for those who may still tell from the one before
    says_what_it_holds: bool = True  # a process says that it knows a generation only after it has turned to it
    waits_from_its_making: bool = True  # LEASE counts from when the generation was made, or the store came back, too
    only_prolongs: bool = True  # a store that answers nobody prolongs a lease that is not over, and no other
    reads_are_vouched: bool = True  # an answer from Redis that could not be told from is marked as lagging
    # 4 Late words
    gone_stays_gone: bool = True  # only ``number`` and ``seed`` make entries
    newer_stays: bool = True  # a change is shown over an older one only
    notes_are_needed: bool = True  # where nothing is beside, a change whose note is gone is not shown any more
    note_only_makes: bool = True  # where there is an entry a change needs no note, only a higher order
    floor_moves_beside: bool = True  # what the floor passes and the store may lack is kept beside
    # 5 One order of changes
    one_order: bool = True  # the store applies a change only over one of a lower order
    delete_is_final: bool = True  # a delete is applied, and shown, whatever came before it
    order_names_epoch: bool = True  # orders of a later epoch are higher than all of an earlier one
    order_then_read: bool = True  # the message to be changed is read after the change has its order
    # 6 Opening
    announced: bool = True  # a chat is seeded only while its announcement is there
    marker_names_set: bool = True  # and in the data set that it was announced in
    marker_of_newest: bool = True  # (c) is done for a marker of the newest generation alone
    two_steps: bool = True  # seeded as pending, live after the store knows the epoch as the live one
    other_ends_opening: bool = True  # what is applied between (a) and (c) ends the opening
    older_posts_aside: bool = True  # a post of an older epoch than the live one is set aside
    older_changes_aside: bool = True  # and so is a change
    pending_is_not_read: bool = True  # readers take a pending chat for one without a hash
    # 7 Keys and numbers
    place_first: bool = True  # a place in the queue is held before a number is taken
    gives_back: bool = True  # what is refused after its number was taken gives it back
    shared_is_kept: bool = True  # unless another try of the same key was given it
    look_expires: bool = True  # a look into the store counts for a while of Redis' time
    look_names_epoch: bool = True  # and in the epoch it was made in alone
    key_is_kept: bool = True  # a key's entry stays for a while after it is stored
    # 8 Redis may answer anything
    error_is_refusal: bool = True  # a post that could not be shown is a 503
    # 9 The database may answer anything
    tries_again: bool = True  # an error that passes is tried again; else: the batch is set aside
    bisects: bool = True  # a command at fault is set aside alone; else: with its batch
    # 10 Nothing dies silently
    dies_loudly: bool = True  # an unexpected end of a task ends its process


ALL = Rules()
