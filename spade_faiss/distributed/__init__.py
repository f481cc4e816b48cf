"""Build, query and evaluate on a Ray cluster, with the results of one machine.

Batches of images go to actors, and so do the searches of a calibration. What comes back is taken
in its order by the one process that writes it, so that a file is the same whatever ran where.
Plain actors rather than Ray Data: which images make a batch depends on which ones before could be
decoded, and a stream of Ray Data's starts actors of its own and ends them, where here the same
ones, their networks loaded, do features, calibrations and queries of any number of indices.

Every node needs this package, and the images, the index, any weights and, for an evaluation, the
folder of the results at the same paths.
"""

from .cluster import crew_on, on_ray, spread
from .crew import Crew
from .spade import RaySpade

__all__ = ["Crew", "RaySpade", "crew_on", "on_ray", "spread"]
