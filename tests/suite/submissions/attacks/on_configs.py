"""Budgets, configs and data other than those of the run."""

from __future__ import annotations

from tests.suite.submissions.attacks.attack import of_record
from tests.suite.submissions.made import MINE

of_record("parameters under-reported", "recount", "certificate.parameters",
          lambda c: c["certificate"].update(parameters=c["certificate"]["parameters"] - 5000))  # fmt: skip
of_record("parameters of a mixer in a file under-reported, its ratio not", "recount", "certificate.ratio",
          lambda c: c["certificate"].update(parameters=c["certificate"]["parameters"] - 500), MINE)  # fmt: skip
of_record("a width changed after the certificate", "recount", "certificate",
          lambda c: c["config"]["mixer_options"].update(d_v=8))  # fmt: skip
of_record("FLOPs under-reported", "recount", "certificate.flops", lambda c: c["certificate"].update(flops=1))
of_record("a run that exceeds the budget presented as matched", "recount", "certificate",
          lambda c: [c[part]["mixer_options"].update(d_v=512) for part in ("config", "certificate")])  # fmt: skip
of_record("an unmatched mixer in a file presented as matched", "recount", "certificate.matched",
          lambda c: c["certificate"].update(
              parameters=2 * c["certificate"]["reference_parameters"], ratio=2.0), MINE)  # fmt: skip
of_record("the mixer on top differs from the config's", "recount", "mixer: 'softmax' is recorded",
          lambda c: c.update(mixer="softmax"))  # fmt: skip
of_record("steps other than the recipe's", "recount", "deviates from the recipe", lambda c: (
    c["config"]["train"].update(evals=10)))  # fmt: skip
of_record("another version of the task", "recount", "versions.task", lambda c: c["versions"].update(task=9))
of_record("another protocol of the data", "recount", "data.protocol", lambda c: c["data"].update(protocol="mine/1"))
of_record("another data fingerprint", "recount", "data.fingerprint", lambda c: c["data"].update(fingerprint="0" * 64))
of_record("another number of training examples", "recount", "data.splits",
          lambda c: c["data"]["splits"].update(train=60000))  # fmt: skip
of_record(
    "another list of classes", "recount", "data.details", lambda c: c["data"]["details"].update(class_list="easy")
)
of_record("changed code of the suite", "recount", "code.git_dirty", lambda c: c["code"].update(git_dirty=True))
of_record("a date in the future", "ranges", "created", lambda c: c.update(created="2999-01-01T00:00:00+00:00"))
