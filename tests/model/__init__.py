"""A model of the cluster's protocol that runs: docs/decisions/0007-cluster-protocol.md, every part a small machine.

What a part does is a generator. It yields wherever somebody else may act before it goes on: while a word of its own is
on its way, while an answer is on its way back, before it commits. The scheduler (world.py) resumes one of them at
random, or lets something break (faults.py); everything that happens between two yields is atomic, as a script in Redis
or a transaction of the store is. A process that crashes loses its generators; one that is frozen is not resumed for a
while and then goes on with what it believed; a call that breaks may be carried out now, never, or later.

checker.py knows what clients were told, and compares each answer, and in the end the store, with the contract.

Why a scheduler of our own, and not Hypothesis' stateful tests: a protocol's faults hide in interleavings, of which
there are many, so what counts is how many are tried. Hypothesis makes each choice through an engine that keeps all it
needs to shrink later; here a choice is one call of random(), and one core runs about two thousand schedules a second.
A schedule is a function of its seed alone, so one number names a failure. And what
Hypothesis would give in return, a small example, is had by running the schedule again with choices left out for as long
as it still fails the same way (shrink.py), which also prints what happened, step by step.

Not in it: copies of the store and the position that a copy must have reached, pages that a process remembers and their
versions, more than one shard, a Redis that is full or forgets single keys, sizes of statements and transactions. The
store is a set of tables whose transactions are atomic and durable, and the broker loses no confirmed message.
"""
