"""A convolutional network written by hand in NumPy: every forward and backward pass beside its equation."""

from typing import TYPE_CHECKING

from cnn import augmentation as augmentation
from cnn import initializers as initializers
from cnn import schedules as schedules
from cnn.checkpoint import CheckpointError as CheckpointError
from cnn.clipping import clip_by_norm as clip_by_norm
from cnn.clipping import clip_by_value as clip_by_value
from cnn.device import move as move
from cnn.engine.executors import Processes as Processes
from cnn.engine.executors import Serial as Serial
from cnn.engine.executors import Threads as Threads
from cnn.engine.memory import keep_freed_memory as keep_freed_memory
from cnn.engine.ranks import Ranks as Ranks
from cnn.engine.shards import Examples as Examples
from cnn.gradient_check import gradient_check as gradient_check
from cnn.layers import *  # noqa: F403
from cnn.losses import cross_entropy as cross_entropy
from cnn.losses import mean_squared_error as mean_squared_error
from cnn.losses import softmax_cross_entropy as softmax_cross_entropy
from cnn.moving_average import Lookahead as Lookahead
from cnn.moving_average import MovingAverage as MovingAverage
from cnn.optimizers import SGD as SGD
from cnn.optimizers import Adagrad as Adagrad
from cnn.optimizers import Adam as Adam
from cnn.optimizers import AdamW as AdamW
from cnn.optimizers import Muon as Muon
from cnn.optimizers import Optimizer as Optimizer
from cnn.optimizers import RMSProp as RMSProp
from cnn.parameter import Parameter as Parameter
from cnn.parameter_groups import Group as Group
from cnn.parameter_groups import NonFiniteError as NonFiniteError
from cnn.parameter_groups import ParameterGroups as ParameterGroups
from cnn.parameter_groups import select_parameters as select_parameters
from cnn.saving import Saved as Saved
from cnn.saving import load as load
from cnn.saving import save as save
from cnn.specs import SpecError as SpecError
from cnn.specs import from_spec as from_spec
from cnn.training import EpochReport as EpochReport
from cnn.training import Progress as Progress
from cnn.training import fit as fit
from cnn.training import fit_by_epoch as fit_by_epoch
from cnn.whitening import whiten as whiten

if not TYPE_CHECKING:  # `import *` takes classes and functions, not the modules
    __all__ = [name for name, value in globals().items() if callable(value) and name[0] != "_"]
