"""A model of the cluster's protocol that runs, with each part as a small machine. The protocol is
docs/decisions/0007-cluster-protocol.md.

What a part does is a generator. It yields wherever another part may act before it continues: while its call is on its
way, while an answer is on its way back, and before it commits. The scheduler (world.py) resumes a random generator, or
injects a fault (faults.py). Everything between two yields is atomic, like a script in Redis or a transaction of the
store. A process that crashes loses its generators. One that is frozen is not resumed for a while and then continues
with what it knew. A call that breaks may be carried out now, later, or never.

checker.py records the answers that clients got. It compares each answer, and the store at the end, with the contract.

We have a scheduler of our own instead of Hypothesis' stateful tests because a protocol's faults hide in interleavings.
There are many, so the number of tries counts. Hypothesis makes each choice through an engine that keeps what it needs
to shrink later. Here a choice is one call of random(), and one core runs about two thousand schedules a second. A
schedule is a function of its seed alone, so one number names a failure. shrink.py makes a small example, as Hypothesis
would: it leaves choices out while the schedule still fails in the same way, and prints what happens step by step.

The model leaves out replicas of the store and the positions that they must have reached, pages that a process caches
and their versions, more than one shard, a Redis that is full or forgets single keys, and the sizes of statements and
transactions. The store is a set of tables whose transactions are atomic and durable, and the broker loses no confirmed
message.
"""
