"""Build, query and evaluate on a Ray cluster, with the results of one machine.

Images are a stream of Ray Data's, decoded by tasks on any node. Batches of them go to actors, and
so do the searches of a calibration: the same ones, their networks loaded, for any number of
indices. What comes back is taken in its order by the one process that writes it, so that a file is
the same whatever ran where.

Every node needs this package, and the images, the index, any weights and, for an evaluation, the
folder of the results at the same paths.

Nothing is imported here: a task that decodes images needs no torch, and an actor sets the number
of threads before it imports torch.
"""
