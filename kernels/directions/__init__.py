"""Rows to unit length on the way into a product, and the chain rule back, for every engine over pairs of rows.

    u = v / ‖v‖ with v = x, or v = x - x̄ where rows are standardised:   dL/dx = (dU - (dU·u) u) / ‖v‖, centred again.

The rule needs a whole row of dU, which the sweep over pairs may have split over programs and over chunks of columns, so
it is a launch of its own: it joins the parts in fixed order and reads 2·n·d numbers, against the sweep's n²·d products.
"""
