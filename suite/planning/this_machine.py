"""The rates of this machine's CPU, measured on training steps of two reference models of the same task.

Softmax multiplies much and moves little, the layer of RetNet moves more: two steps give the two rates. Every other
mixer's time then follows from its counted work.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from backbones.base import Layer
from suite.config.run_config import RunConfig
from suite.errors import UserError
from suite.models.budget import Plan
from suite.models.certificate import count
from suite.models.inputs import adapter
from suite.planning.estimate import BACKWARD, UPDATE
from suite.planning.example_batches import random_batch
from suite.planning.rates import Rates
from suite.planning.step_work import step_work
from suite.training.evaluate import autocast
from suite.training.optimisation import make_optimizer
from tasks.base import Task

#: The longest that a measured step may be: layers, and token positions.
MOST_LAYERS, MOST_POSITIONS = 4, 16384
REPEATS = 5
