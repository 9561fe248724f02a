"""The classifiers of the class-table engine, whose contract they keep: the one place that names where they lie.

The engine asks two things more. A class that is not the target has the logit and the G of `hot` false, whatever the
lengths; and R (unless x is scaled to length one) and Q (unless w is) are those of the target alone.
"""

from ..old_class_table.epilogues.class_table import CLASSIFIERS, Classifier

__all__ = ["CLASSIFIERS", "Classifier"]
