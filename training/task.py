"""A network on a mesh of devices: what training and evaluation have in common."""

import dataclasses
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

import vision_models
from devices import mesh as meshes
from evaluation import CLASSES, Objective
from evaluation.preprocessing import Preprocessing
from training.network import wrong_options
from vision_models.analysis import multiply_adds
from vision_models.functional import PureNetwork, functional


@dataclasses.dataclass(frozen=True)
class Task:
    """A network, its images, a mesh, and the parameters' sharding on it.

    Attributes:
      name: the network's name.
      options: the network's options, `num_classes` among them.
      network: the network without its variables.
      preprocessing: of the images.
      dtype: of the computation.
      mesh: with axes `data` and `tower`.
      objective: what the network learns, which its number of outputs follows.
      param_specs: a tree like the parameters, of partition specs.
    """

    name: str
    options: dict[str, Any]
    network: PureNetwork
    preprocessing: Preprocessing
    dtype: str
    mesh: Mesh
    param_specs: Any
    objective: Objective = CLASSES

    def padded_batch_size(self, batch_size: int) -> int:
        """The smallest size from `batch_size` up that devices along `data` can share equally."""
        data = self.mesh.shape["data"]
        return -(-batch_size // data) * data


def make_task(
    name: str,
    options: dict[str, Any],
    preprocessing: Preprocessing,
    *,
    data: int | None = None,
    tower: int | None = None,
    dtype: str = "float32",
    devices: list[jax.Device] | None = None,
    objective: Objective = CLASSES,
) -> Task:
    """Builds network and mesh; allocates nothing.

    Args:
      name, options: of the network, as for `vision_models.create`.
      preprocessing: of the images.
      data, tower: numbers of devices along the mesh's axes; None: see `devices.mesh.make_mesh`.
      dtype: of the computation.
      devices: of the mesh; by default all devices of all processes.
      objective: what the network learns.

    Raises:
      TrainingError: the network does not take the options.
      DeviceError: the mesh does not fit the devices.
    """
    try:
        network = functional(lambda rngs: vision_models.create(name, rngs=rngs, **options))
    except ValueError as error:
        raise wrong_options(error) from error
    mesh = meshes.make_mesh(network.towers, data=data, tower=tower, devices=devices)
    specs = meshes.param_specs(network.per_tower, mesh)
    return Task(name, options, network, preprocessing, dtype, mesh, specs, objective)


def training_flops(task: Task) -> float:
    """FLOP of training on one image: two per multiply-add, one pass forward and two backward."""
    model = nnx.eval_shape(
        lambda: vision_models.create(task.name, rngs=nnx.Rngs(0), **task.options)
    )
    return 6.0 * multiply_adds(model)


def abstract_model(task: Task) -> dict[str, Any]:
    """Shapes, dtypes and shardings of `params` and `statistics`."""
    params, statistics = jax.eval_shape(task.network.init, jax.random.key(0))
    replicated = jax.tree.map(lambda _: meshes.replicated(task.mesh), statistics)
    sharded = meshes.shardings(task.mesh, task.param_specs)
    return {
        "params": meshes.abstract_arrays(params, sharded),
        "statistics": meshes.abstract_arrays(statistics, replicated),
    }


def put_model(task: Task, params: Any, statistics: Any) -> dict[str, Any]:
    """Puts arrays of this host on the mesh, as `params` and `statistics`."""
    abstract = abstract_model(task)
    model = {"params": params, "statistics": statistics}
    return jax.tree.map(lambda like, value: meshes.put(value, like.sharding), abstract, model)
